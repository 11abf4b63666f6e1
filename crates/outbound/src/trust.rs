//! The root certificates of this machine, loaded once per process.

use std::sync::{Arc, LazyLock};

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

static ROOTS: LazyLock<Vec<CertificateDer<'static>>> = LazyLock::new(|| {
    let loaded = rustls_native_certs::load_native_certs();
    for error in &loaded.errors {
        tracing::warn!(%error, "failed to read a root certificate of this machine");
    }
    if loaded.certs.is_empty() {
        tracing::warn!(
            "no root certificates found, so every https request will fail; install ca-certificates"
        );
    }
    loaded.certs
});

/// Returns the root certificates that this machine trusts. The first call reads more than a hundred files,
/// which takes milliseconds. Changes on disk take effect after a restart. Certificates that cannot be read
/// are skipped and logged.
pub fn root_certificates() -> &'static [CertificateDer<'static>] {
    &ROOTS
}

/// Returns a TLS configuration for clients that trust the root certificates of this machine.
///
/// # Errors
/// Fails if the TLS library rejects the configuration.
pub fn tls_client_config() -> Result<ClientConfig, rustls::Error> {
    let mut trusted = RootCertStore::empty();
    trusted.add_parsable_certificates(root_certificates().iter().cloned());
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(trusted)
        .with_no_client_auth();
    Ok(config)
}
