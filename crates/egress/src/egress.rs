//! The proxy as the server holds it, and what bounds one connection of a sandbox.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use herm_outbound::Allowed;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use crate::authority::Authority;
use crate::dial::{Resolver, SystemResolver};
use crate::owner::Owner;
use crate::proxy;
use crate::watched::Watched;

/// The most connections that one sandbox has at a time.
pub const MAX_CONNECTIONS: usize = 256;
/// A connection over which nothing goes for so long, in either direction, is closed.
pub const IDLE_LIMIT: Duration = Duration::from_secs(15 * 60);

/// What a connection beyond [`MAX_CONNECTIONS`] is told.
const BUSY: &[u8] =
    b"HTTP/1.1 503 Too many connections\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n\
    herm: this sandbox has too many connections open; close some first\n";

/// What the proxy is made of.
pub struct Options {
    pub authority: Authority,
    /// What may be reached although it is private.
    pub allowed: Allowed,
    /// Certificates that hosts may stand on beside those of this machine.
    pub extra_roots: Vec<CertificateDer<'static>>,
    pub resolver: Arc<dyn Resolver>,
}

impl Options {
    /// Public addresses alone, as this machine resolves and trusts them.
    pub fn new(authority: Authority) -> Self {
        Self {
            authority,
            allowed: Allowed::default(),
            extra_roots: Vec::new(),
            resolver: Arc::new(SystemResolver),
        }
    }
}

/// The way out of all sandboxes; cheap to clone.
#[derive(Clone)]
pub struct Egress(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) authority: Authority,
    pub(crate) allowed: Allowed,
    pub(crate) resolver: Arc<dyn Resolver>,
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) to_hosts: Arc<ClientConfig>,
    places: Arc<Places>,
}

impl Egress {
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(options: Options) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(herm_outbound::roots().iter().cloned().chain(options.extra_roots));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut to_hosts = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // What is resumed tells the host that two deployments are of one server.
        to_hosts.resumption = Resumption::disabled();
        Ok(Self(Arc::new(Shared {
            authority: options.authority,
            allowed: options.allowed,
            resolver: options.resolver,
            provider,
            to_hosts: Arc::new(to_hosts),
            places: Arc::default(),
        })))
    }

    pub fn authority(&self) -> &Authority {
        &self.0.authority
    }

    /// Serves one connection of a program in a sandbox, to its end; dropped, it ends at once. All connections of one
    /// sandbox come with the same `owner`: by it they are counted.
    pub async fn serve<S>(&self, mut stream: S, owner: Arc<dyn Owner>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(_place) = self.0.places.take(&owner) else {
            // Who does not read the answer is gone already.
            let _ = stream.write_all(BUSY).await;
            let _ = stream.shutdown().await;
            return;
        };
        let (stream, activity) = Watched::new(stream);
        tokio::select! {
            () = proxy::serve(self.0.clone(), owner.clone(), stream) => {}
            () = activity.quiet_for(IDLE_LIMIT) => tracing::debug!("a connection of a sandbox was idle for too long"),
        }
    }
}

/// How many connections each sandbox has, by where its owner lies in memory: it stays there while a connection lives.
#[derive(Default)]
struct Places(Mutex<HashMap<usize, usize>>);

/// One connection's place; free again when it goes.
struct Place {
    places: Arc<Places>,
    key: usize,
}

impl Places {
    fn take(self: &Arc<Self>, owner: &Arc<dyn Owner>) -> Option<Place> {
        let key = Arc::as_ptr(owner).cast::<()>() as usize;
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(key).or_default();
        if *count >= MAX_CONNECTIONS {
            return None;
        }
        *count += 1;
        Some(Place { places: self.clone(), key })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = taken.entry(self.key) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}
