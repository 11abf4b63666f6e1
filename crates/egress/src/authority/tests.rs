use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use herm_types::time::ManualClock;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::*;

const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(NOW))
}

fn certificates_of(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect()
}

fn target(authority: &str) -> Target {
    Target::parse(authority, None).unwrap()
}

/// Returns true if a client that trusts the authority accepts the certificate for the host `name`, `days` days after
/// it was issued.
fn is_trusted(authority: &Authority, key: &CertifiedKey, name: &str, days: i64) -> bool {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(certificates_of(authority.ca_pem()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .unwrap();
    let at = NOW.plus_ms(days * DAY_MS).as_micros() / 1_000_000;
    let at = rustls::pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_secs(at as u64));
    let name = name.to_owned().try_into().unwrap();
    use rustls::client::danger::ServerCertVerifier as _;
    verifier.verify_server_cert(&key.cert[0], &[], &name, &[], at).is_ok()
}

#[test]
fn the_authority_is_created_once_in_a_private_file() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("data");
    let first = Authority::open(&inner, clock()).unwrap();
    let second = Authority::open(&inner, clock()).unwrap();
    assert_eq!(first.ca_pem(), second.ca_pem());
    assert!(!first.ca_pem().contains("PRIVATE"));
    let mode = fs::metadata(file::path(&inner)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(fs::read_dir(&inner).unwrap().count(), 1, "no temporary file is left");
    let leaf = second.certify(&target("api.example.com:443")).unwrap();
    assert!(
        is_trusted(&first, &leaf, "api.example.com", 0),
        "certificates issued after a restart are trusted"
    );
}

#[test]
fn an_invalid_file_is_rejected_and_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let good = Authority::open(dir.path(), clock()).unwrap();
    let certificate_alone = good.ca_pem().to_owned();
    for text in ["", "not a key", &certificate_alone, &"x".repeat(100_000)] {
        fs::write(file::path(dir.path()), text).unwrap();
        let error = Authority::open(dir.path(), clock()).err().unwrap();
        assert!(error.to_string().contains("egress-ca.pem"), "{error}");
        assert_eq!(fs::read_to_string(file::path(dir.path())).unwrap(), text);
    }
}

#[test]
fn a_certificate_is_valid_for_its_host_only_and_for_days() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path(), clock()).unwrap();
    for (at, name) in [
        ("api.example.com:443", "api.example.com"),
        ("192.0.2.1:443", "192.0.2.1"),
        ("[2001:db8::1]:8443", "2001:db8::1"),
    ] {
        let leaf = authority.certify(&target(at)).unwrap();
        assert!(is_trusted(&authority, &leaf, name, 0), "{name}");
        assert!(is_trusted(&authority, &leaf, name, 6), "{name}");
        assert!(!is_trusted(&authority, &leaf, name, 8), "{name}");
        assert!(!is_trusted(&authority, &leaf, "other.example.com", 0), "{name}");
    }
    let long = format!("{}.{}.example", "x".repeat(60), "y".repeat(60));
    let leaf = authority.certify(&target(&format!("{long}:443"))).unwrap();
    assert!(is_trusted(&authority, &leaf, &long, 0));
}

#[test]
fn certificates_are_cached_for_a_day_up_to_a_limit() {
    let dir = tempfile::tempdir().unwrap();
    let clock = clock();
    let authority = Authority::open(dir.path(), clock.clone()).unwrap();
    let first = authority.certify(&target("a.example:443")).unwrap();
    assert!(Arc::ptr_eq(&first, &authority.certify(&target("a.example:8443")).unwrap()));
    clock.advance_ms(LEAF_REUSE_MS);
    let second = authority.certify(&target("a.example:443")).unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    for number in 0..MAX_CACHED_LEAVES {
        authority.certify(&target(&format!("h{number}.example:443"))).unwrap();
    }
    let leaves = authority.0.leaves.lock().unwrap();
    assert_eq!((leaves.by_name.len(), leaves.order.len()), (MAX_CACHED_LEAVES, MAX_CACHED_LEAVES));
    assert!(!leaves.by_name.contains_key("a.example"), "the oldest is evicted first");
}

#[test]
fn the_bundle_contains_the_machines_roots_and_the_authority() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path(), clock()).unwrap();
    let bundle = certificates_of(&authority.bundle());
    let mut expected = herm_outbound::root_certificates().to_vec();
    expected.extend(certificates_of(authority.ca_pem()));
    assert_eq!(bundle, expected);
}
