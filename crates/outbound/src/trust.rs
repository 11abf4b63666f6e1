//! Whom this machine trusts: read once, for every client in this process.

use std::sync::{Arc, LazyLock};

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

static ROOTS: LazyLock<Vec<CertificateDer<'static>>> = LazyLock::new(|| {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "failed to read some of this machine's root certificates");
    }
    if found.certs.is_empty() {
        tracing::warn!(
            "this machine has no root certificates: nothing is reached by https; install ca-certificates"
        );
    }
    found.certs
});

/// The certificates of the authorities that this machine trusts. The first call reads some hundred files and takes
/// milliseconds; what changes on the disk afterwards counts at the next start. What cannot be read is left out, and
/// logged.
pub fn roots() -> &'static [CertificateDer<'static>] {
    &ROOTS
}

/// What a client that trusts as this machine does connects with.
///
/// # Errors
/// TLS cannot be set up.
pub fn tls() -> Result<ClientConfig, rustls::Error> {
    let mut trusted = RootCertStore::empty();
    trusted.add_parsable_certificates(roots().iter().cloned());
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(trusted)
        .with_no_client_auth();
    Ok(config)
}
