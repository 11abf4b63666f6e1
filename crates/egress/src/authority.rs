//! The server's certificate authority. It issues the certificates that the proxy presents to programs in sandboxes when
//! it intercepts their connections. Only programs in sandboxes trust this authority.

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

/// The validity period of a host certificate, in milliseconds.
const LEAF_LIFETIME_MS: i64 = 7 * DAY_MS;
/// The time for which an issued host certificate is reused, in milliseconds. It is shorter than the validity period, so
/// that a reused certificate remains valid for days.
const LEAF_REUSE_MS: i64 = DAY_MS;
/// A certificate's validity period begins this many milliseconds before the certificate is issued, for clients whose
/// clock is behind.
const BACKDATE_MS: i64 = DAY_MS / 24;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// The maximum number of cached host certificates. Beyond it, the oldest certificate is evicted. Issuing an evicted
/// certificate again takes less than a millisecond.
const MAX_CACHED_LEAVES: usize = 1024;
/// The maximum length of a certificate's common name, in characters (RFC 5280). A longer host name is set as subject
/// alternative name only.
const MAX_COMMON_NAME_CHARS: usize = 64;
/// The length of a line of a PEM file, in characters.
const PEM_LINE_CHARS: usize = 64;

/// Issues certificates for the hosts of intercepted connections. Cheap to clone.
#[derive(Clone)]
pub struct Authority(Arc<AuthorityState>);

struct AuthorityState {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
    /// The private key of all host certificates, generated when the process starts.
    leaf_key: KeyPair,
    leaf_signer: Arc<dyn SigningKey>,
    clock: Arc<dyn Clock>,
    leaves: Mutex<Leaves>,
}

#[derive(Default)]
struct Leaves {
    by_name: HashMap<String, Leaf>,
    /// The names of the hosts with a cached certificate, from the oldest certificate to the newest.
    order: VecDeque<String>,
}

struct Leaf {
    key: Arc<CertifiedKey>,
    issued_at: Timestamp,
}

impl Authority {
    /// Opens the certificate authority that is stored in the directory `dir`, or creates one there. The caller must
    /// hold the lock on the directory.
    ///
    /// # Errors
    /// Fails if the authority's file cannot be read, written or parsed, or if a key cannot be generated.
    pub fn open(dir: &Path, clock: Arc<dyn Clock>) -> Result<Self, AuthorityError> {
        let file::StoredAuthority { certificate_pem, key_pem } = file::load_or_create(dir, clock.now())?;
        let invalid = |_| AuthorityError::Invalid { path: file::path(dir) };
        let key = KeyPair::from_pem(&key_pem).map_err(invalid)?;
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key).map_err(invalid)?;
        let leaf_key = KeyPair::generate().map_err(AuthorityError::Generate)?;
        let leaf_der = PrivatePkcs8KeyDer::from(leaf_key.serialize_der()).into();
        let leaf_signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&leaf_der)
            .map_err(|_| AuthorityError::Generate(rcgen::Error::CouldNotParseKeyPair))?;
        let leaves = Mutex::default();
        Ok(Self(Arc::new(AuthorityState { certificate_pem, issuer, leaf_key, leaf_signer, clock, leaves })))
    }

    /// Returns the authority's own certificate as PEM.
    pub fn ca_pem(&self) -> &str {
        &self.0.certificate_pem
    }

    /// Returns the certificates that programs in a sandbox trust, as PEM: the root certificates of this machine and
    /// the authority's own certificate.
    pub fn bundle(&self) -> String {
        let mut bundle = String::new();
        for certificate in herm_outbound::root_certificates() {
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

    /// Returns a certificate for this host, with its private key. A certificate from the cache is reused for a day.
    pub(crate) fn certify(&self, target: &Target) -> Result<Arc<CertifiedKey>, rcgen::Error> {
        let now = self.0.clock.now();
        let mut leaves = self.0.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        let name = target.name();
        if let Some(leaf) = leaves.by_name.get(name)
            && now < leaf.issued_at.plus_ms(LEAF_REUSE_MS)
        {
            return Ok(leaf.key.clone());
        }
        let key = Arc::new(self.0.issue(target, now)?);
        let leaf = Leaf { key: key.clone(), issued_at: now };
        if leaves.by_name.insert(name.to_owned(), leaf).is_some() {
            leaves.order.retain(|other| other != name);
        }
        leaves.order.push_back(name.to_owned());
        if leaves.order.len() > MAX_CACHED_LEAVES
            && let Some(oldest) = leaves.order.pop_front()
        {
            leaves.by_name.remove(&oldest);
        }
        Ok(key)
    }
}

impl AuthorityState {
    fn issue(&self, target: &Target, now: Timestamp) -> Result<CertifiedKey, rcgen::Error> {
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
        params.not_before = date(now.plus_ms(-BACKDATE_MS));
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
