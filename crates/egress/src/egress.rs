//! The proxy's interface to the server, and the limits on each sandbox's connections to the proxy.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use herm_outbound::AllowedAddresses;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use crate::authority::Authority;
use crate::dial::{Resolver, SystemResolver};
use crate::monitored_stream::MonitoredStream;
use crate::owner::Owner;
use crate::proxy;

/// The maximum number of concurrent connections of one sandbox to the proxy. Further connections are answered with
/// 503.
pub const MAX_CONNECTIONS: usize = 256;
/// The time without traffic in either direction after which a sandbox's connection to the proxy is closed.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// The response to a connection beyond [`MAX_CONNECTIONS`].
const TOO_MANY_CONNECTIONS: &[u8] =
    b"HTTP/1.1 503 Too many connections\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n\
    herm: this sandbox has too many open connections; close some first\n";

/// Dependencies and settings of [`Egress`].
pub struct Options {
    pub authority: Authority,
    /// The private addresses that sandboxes may reach.
    pub allowed: AllowedAddresses,
    /// The root certificates that the proxy trusts when it connects to destination hosts, in addition to the root
    /// certificates of this machine.
    pub extra_roots: Vec<CertificateDer<'static>>,
    pub resolver: Arc<dyn Resolver>,
}

impl Options {
    /// Creates options that allow public addresses only, and that use this machine's DNS resolver and root
    /// certificates.
    pub fn new(authority: Authority) -> Self {
        Self {
            authority,
            allowed: AllowedAddresses::default(),
            extra_roots: Vec::new(),
            resolver: Arc::new(SystemResolver),
        }
    }
}

/// The egress proxy, which serves the connections of all sandboxes. Cheap to clone.
#[derive(Clone)]
pub struct Egress(Arc<ProxyState>);

pub(crate) struct ProxyState {
    pub(crate) authority: Authority,
    pub(crate) allowed: AllowedAddresses,
    pub(crate) resolver: Arc<dyn Resolver>,
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) client_tls: Arc<ClientConfig>,
    connections: Arc<ConnectionCounts>,
}

impl Egress {
    /// Creates the proxy.
    ///
    /// # Errors
    /// Fails if TLS cannot be configured.
    pub fn new(options: Options) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(
            herm_outbound::root_certificates().iter().cloned().chain(options.extra_roots),
        );
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut client_tls = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // TLS session resumption would show a destination host that two deployments belong to the same server.
        client_tls.resumption = Resumption::disabled();
        Ok(Self(Arc::new(ProxyState {
            authority: options.authority,
            allowed: options.allowed,
            resolver: options.resolver,
            provider,
            client_tls: Arc::new(client_tls),
            connections: Arc::default(),
        })))
    }

    pub fn authority(&self) -> &Authority {
        &self.0.authority
    }

    /// Serves one connection of a program in a sandbox until the connection ends. Dropping the future closes the
    /// connection at once. All connections of one sandbox must share one `owner`, because the number of connections
    /// is limited per owner.
    pub async fn serve<S>(&self, mut stream: S, owner: Arc<dyn Owner>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(_slot) = self.0.connections.try_acquire(&owner) else {
            // Ignore errors: they mean that the program has closed the connection.
            let _ = stream.write_all(TOO_MANY_CONNECTIONS).await;
            let _ = stream.shutdown().await;
            return;
        };
        let (stream, activity) = MonitoredStream::new(stream);
        tokio::select! {
            () = proxy::serve(self.0.clone(), owner.clone(), stream) => {}
            () = activity.wait_until_idle(IDLE_TIMEOUT) => tracing::debug!("closed a sandbox's connection to the proxy because it was idle"),
        }
    }
}

/// The number of open connections per sandbox. The key is the memory address of the sandbox's `Owner`, which does not
/// change while a connection is open.
#[derive(Default)]
struct ConnectionCounts(Mutex<HashMap<usize, usize>>);

/// Counts one connection towards the limit of its sandbox until dropped.
struct ConnectionSlot {
    connections: Arc<ConnectionCounts>,
    key: usize,
}

impl ConnectionCounts {
    fn try_acquire(self: &Arc<Self>, owner: &Arc<dyn Owner>) -> Option<ConnectionSlot> {
        let key = Arc::as_ptr(owner).cast::<()>() as usize;
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(key).or_default();
        if *count >= MAX_CONNECTIONS {
            return None;
        }
        *count += 1;
        Some(ConnectionSlot { connections: self.clone(), key })
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut counts = self.connections.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = counts.entry(self.key) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}
