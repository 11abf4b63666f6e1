//! The certificate authority of this server: by it programs in sandboxes know the certificates of the hosts whose
//! connections are opened. Nothing outside of sandboxes trusts it.

mod file;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use herm_types::time::{Clock, Timestamp};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::{CertifiedKey, SigningKey};

use crate::target::Target;

pub use file::AuthorityError;

/// How long a host's certificate holds.
const LEAF_LIFETIME_MS: i64 = 7 * DAY_MS;
/// How long one is given out: what is given out last still holds for days.
const LEAF_REUSE_MS: i64 = DAY_MS;
/// How far before it is made a certificate begins to hold, for clocks that are behind.
const LEAF_BACKDATED_MS: i64 = DAY_MS / 24;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// The most certificates that are kept, one a host; the oldest goes first. Another costs less than a millisecond.
const MAX_KEPT_LEAVES: usize = 1024;
/// The most characters of a certificate's common name (RFC 5280); longer names stand in the other field alone.
const MAX_COMMON_NAME_CHARS: usize = 64;
/// The characters of a line of PEM.
const PEM_LINE_CHARS: usize = 64;

/// Makes certificates for the hosts whose connections are opened; cheap to clone.
#[derive(Clone)]
pub struct Authority(Arc<Inner>);

struct Inner {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
    /// All hosts' certificates share one key, which lives as long as the process.
    leaf_key: KeyPair,
    leaf_signer: Arc<dyn SigningKey>,
    clock: Arc<dyn Clock>,
    leaves: Mutex<Leaves>,
}

#[derive(Default)]
struct Leaves {
    by_name: HashMap<String, Leaf>,
    /// The names in the order in which they were made.
    order: VecDeque<String>,
}

struct Leaf {
    key: Arc<CertifiedKey>,
    made_at: Timestamp,
}

impl Authority {
    /// The authority that is kept in this directory; made if there is none. The caller holds the directory.
    pub fn open(dir: &Path, clock: Arc<dyn Clock>) -> Result<Self, AuthorityError> {
        let file::Kept { certificate_pem, key_pem } = file::open(dir, clock.now())?;
        let broken = |_| AuthorityError::Broken { path: file::path(dir) };
        let key = KeyPair::from_pem(&key_pem).map_err(broken)?;
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key).map_err(broken)?;
        let leaf_key = KeyPair::generate().map_err(AuthorityError::Make)?;
        let leaf_der = PrivatePkcs8KeyDer::from(leaf_key.serialize_der()).into();
        let leaf_signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&leaf_der)
            .map_err(|_| AuthorityError::Make(rcgen::Error::CouldNotParseKeyPair))?;
        let leaves = Mutex::default();
        Ok(Self(Arc::new(Inner { certificate_pem, issuer, leaf_key, leaf_signer, clock, leaves })))
    }

    /// Its certificate, in PEM.
    pub fn ca_pem(&self) -> &str {
        &self.0.certificate_pem
    }

    /// The certificates that this machine trusts and its own, in PEM: what programs in a sandbox are to trust.
    pub fn bundle(&self) -> String {
        let mut bundle = String::new();
        for certificate in herm_outbound::roots() {
            bundle.push_str("-----BEGIN CERTIFICATE-----\n");
            for line in STANDARD.encode(certificate).as_bytes().chunks(PEM_LINE_CHARS) {
                bundle.push_str(&String::from_utf8_lossy(line));
                bundle.push('\n');
            }
            bundle.push_str("-----END CERTIFICATE-----\n");
        }
        bundle.push_str(self.ca_pem());
        bundle
    }

    /// A certificate for this host, with its key.
    pub(crate) fn certify(&self, target: &Target) -> Result<Arc<CertifiedKey>, rcgen::Error> {
        let now = self.0.clock.now();
        let mut leaves = self.0.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        let name = target.name();
        if let Some(leaf) = leaves.by_name.get(name)
            && now < leaf.made_at.plus_ms(LEAF_REUSE_MS)
        {
            return Ok(leaf.key.clone());
        }
        let key = Arc::new(self.0.make(target, now)?);
        let leaf = Leaf { key: key.clone(), made_at: now };
        if leaves.by_name.insert(name.to_owned(), leaf).is_some() {
            leaves.order.retain(|other| other != name);
        }
        leaves.order.push_back(name.to_owned());
        if leaves.order.len() > MAX_KEPT_LEAVES
            && let Some(oldest) = leaves.order.pop_front()
        {
            leaves.by_name.remove(&oldest);
        }
        Ok(key)
    }
}

impl Inner {
    fn make(&self, target: &Target, now: Timestamp) -> Result<CertifiedKey, rcgen::Error> {
        let name = target.bare_name();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![match target.address() {
            Some(address) => SanType::IpAddress(address),
            None => SanType::DnsName(name.try_into()?),
        }];
        params.distinguished_name = DistinguishedName::new();
        if name.chars().count() <= MAX_COMMON_NAME_CHARS {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.not_before = date(now.plus_ms(-LEAF_BACKDATED_MS));
        params.not_after = date(now.plus_ms(LEAF_LIFETIME_MS));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&self.leaf_key, &self.issuer)?;
        Ok(CertifiedKey::new(vec![certificate.der().clone()], self.leaf_signer.clone()))
    }
}

fn date(at: Timestamp) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(at.as_micros() / 1_000_000)
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
}
