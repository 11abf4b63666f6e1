//! The proxy's connections to one destination host. They are made on demand and reused for later requests.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use herm_types::network::is_public;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use crate::body::Body;
use crate::dial;
use crate::error::ProxyError;
use crate::http_server::{MAX_FIELDS, MAX_HEAD_BYTES};
use crate::mask::SentValues;
use crate::record::{CountedStream, Record};
use crate::sender::{Protocol, Sender};
use crate::session::Session;
use crate::target::Target;
use crate::values::SecretValue;

/// The maximum time to establish a TCP connection to a host. If it takes longer, the request fails.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The maximum duration of a TLS handshake with a host. If it takes longer, the request fails.
const TLS_TIMEOUT: Duration = Duration::from_secs(10);
/// The maximum time to wait until a reused connection can take the next request. If it takes longer, a new connection
/// is made.
const READY_TIMEOUT: Duration = Duration::from_secs(1);

/// The URI scheme of the requests to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    pub(crate) fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// The proxy's own connections to one destination host, for the requests that arrive on one connection from a program.
pub(crate) struct Upstream {
    pub(crate) session: Session,
    pub(crate) target: Target,
    pub(crate) scheme: Scheme,
    /// The HTTP versions to offer to the host in the TLS handshake, in order of preference.
    offered: Mutex<Vec<Protocol>>,
    /// The host's addresses that the sandbox may reach, as determined when the program sent CONNECT. They are used for
    /// the first connection only. For further connections, the name is resolved and the addresses are checked again.
    checked_addresses: Mutex<Option<Vec<SocketAddr>>>,
    /// The connection that can take the next request, if there is one.
    idle: tokio::sync::Mutex<Option<Connection>>,
    /// The tasks that drive the connections to the host. The tasks are aborted when the upstream is dropped.
    tasks: Mutex<Vec<AbortOnDropHandle<()>>>,
}

/// A connection to the destination host on which a request can be sent.
pub(crate) struct Connection {
    pub(crate) sender: Sender,
    pub(crate) peer: Arc<Peer>,
}

/// The state of a connection to the host, which is shared by all requests on that connection.
pub(crate) struct Peer {
    /// True if secrets may be sent over the connection, because it uses TLS or goes to a private address.
    allows_secrets: bool,
    /// The secret values that may have been sent over the connection. They are masked in its responses.
    pub(crate) sent_values: Mutex<SentValues>,
    /// The record of the connection's traffic. The reference is weak, because the traffic is reported when the last
    /// strong reference to the record is dropped, and that must happen when the connection ends.
    record: Weak<Record>,
}

impl Peer {
    /// Returns `secrets` if secrets may be sent over this connection. Otherwise returns an empty slice.
    pub(crate) fn sendable<'a>(&self, secrets: &'a [SecretValue]) -> &'a [SecretValue] {
        if self.allows_secrets { secrets } else { &[] }
    }

    /// Returns the record of the connection, or `None` if the connection has ended. While the caller holds the
    /// record, errors can be added to it.
    pub(crate) fn record(&self) -> Option<Arc<Record>> {
        self.record.upgrade()
    }
}

impl Upstream {
    pub(crate) fn new(session: Session, target: Target, scheme: Scheme) -> Self {
        Self {
            session,
            target,
            scheme,
            offered: Mutex::new(vec![Protocol::Http1]),
            checked_addresses: Mutex::default(),
            idle: tokio::sync::Mutex::default(),
            tasks: Mutex::default(),
        }
    }

    /// Sets the checked addresses that are used for the first connection.
    pub(crate) fn with_checked_addresses(self, addresses: Vec<SocketAddr>) -> Self {
        Self { checked_addresses: Mutex::new(Some(addresses)), ..self }
    }

    pub(crate) fn offer(&self, protocols: Vec<Protocol>) {
        *self.offered.lock().unwrap_or_else(PoisonError::into_inner) = protocols;
    }

    /// Establishes the first connection before the program has sent a request. Returns the HTTP version that was
    /// negotiated with the host.
    pub(crate) async fn connect_early(&self) -> Result<Protocol, ProxyError> {
        let connection = self.dial().await?;
        let protocol = connection.sender.protocol();
        *self.idle.lock().await = Some(connection);
        Ok(protocol)
    }

    /// Returns the idle connection if it can still be used, or else a new connection.
    pub(crate) async fn acquire(&self) -> Result<Connection, ProxyError> {
        let mut idle = self.idle.lock().await;
        if let Some(mut connection) = idle.take()
            && matches!(timeout(READY_TIMEOUT, connection.sender.ready()).await, Ok(Ok(())))
        {
            if let Some(sender) = connection.sender.try_clone() {
                *idle = Some(Connection { sender, peer: connection.peer.clone() });
            }
            return Ok(connection);
        }
        let connection = self.dial().await?;
        if let Some(sender) = connection.sender.try_clone() {
            *idle = Some(Connection { sender, peer: connection.peer.clone() });
        }
        Ok(connection)
    }

    /// Makes a connection available for the next request. This does nothing for HTTP/2, where a connection is always
    /// available because it can carry concurrent requests.
    pub(crate) async fn release(&self, connection: Connection) {
        if connection.sender.try_clone().is_none() {
            *self.idle.lock().await = Some(connection);
        }
    }

    async fn dial(&self) -> Result<Connection, ProxyError> {
        let checked_addresses = self.checked_addresses.lock().unwrap_or_else(PoisonError::into_inner).take();
        let addresses = match checked_addresses {
            Some(addresses) => addresses,
            None => self.session.resolve_allowed(&self.target).await?,
        };
        let record = self.session.record_allowed(&self.target).await?;
        let connection = self.connect(&addresses, &record).await;
        connection.inspect_err(|error| record.fail(error))
    }

    async fn connect(
        &self,
        addresses: &[SocketAddr],
        record: &Arc<Record>,
    ) -> Result<Connection, ProxyError> {
        let (stream, address) = connect(&self.target, addresses, record).await?;
        let allows_secrets = allows_secrets(self.scheme, address);
        let peer =
            Arc::new(Peer { allows_secrets, sent_values: Mutex::default(), record: Arc::downgrade(record) });
        let sender = match self.scheme {
            Scheme::Http => self.http1_handshake(stream, record).await?,
            Scheme::Https => self.tls_handshake(stream, record).await?,
        };
        Ok(Connection { sender, peer })
    }

    async fn tls_handshake(
        &self,
        stream: CountedStream<TcpStream>,
        record: &Arc<Record>,
    ) -> Result<Sender, ProxyError> {
        let offered = self.offered.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let protocols = offered.iter().map(|protocol| protocol.alpn().to_vec()).collect();
        let connector = TlsConnector::from(self.session.state.client_tls.clone());
        let connecting = connector.with_alpn(protocols).connect(self.target.server_name()?, stream);
        let seconds = TLS_TIMEOUT.as_secs();
        let stream = timeout(TLS_TIMEOUT, connecting)
            .await
            .map_err(|_| ProxyError::Timeout { target: self.target.clone(), seconds })?
            .map_err(|error| ProxyError::Tls { target: self.target.clone(), cause: error.to_string() })?;
        match stream.get_ref().1.alpn_protocol() {
            Some(name) if name == Protocol::Http2.alpn() => self.http2_handshake(stream, record).await,
            _ => self.http1_handshake(stream, record).await,
        }
    }

    async fn http1_handshake<S>(&self, stream: S, record: &Arc<Record>) -> Result<Sender, ProxyError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::Builder::new()
            .max_header_size(MAX_HEAD_BYTES)
            .max_headers(MAX_FIELDS)
            .handshake::<_, Body>(TokioIo::new(stream))
            .await
            .map_err(|error| self.connection_failed(&error))?;
        self.drive(connection.with_upgrades(), record);
        Ok(Sender::Http1(sender))
    }

    async fn http2_handshake<S>(&self, stream: S, record: &Arc<Record>) -> Result<Sender, ProxyError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX))
            .handshake::<_, Body>(TokioIo::new(stream))
            .await
            .map_err(|error| self.connection_failed(&error))?;
        self.drive(connection, record);
        Ok(Sender::Http2(sender))
    }

    fn drive(
        &self,
        connection: impl Future<Output = hyper::Result<()>> + Send + 'static,
        record: &Arc<Record>,
    ) {
        let record = record.clone();
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                record.fail(&error);
            }
        });
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|task| !task.is_finished());
        tasks.push(AbortOnDropHandle::new(task));
    }

    pub(crate) fn connection_failed(&self, error: &hyper::Error) -> ProxyError {
        ProxyError::ConnectionFailed { target: self.target.clone(), cause: error.to_string() }
    }
}

/// Returns true if secrets may be sent to this address. Without TLS, only private addresses may receive secrets.
/// Sandboxes can reach private addresses only if the operator allows it.
fn allows_secrets(scheme: Scheme, address: Option<SocketAddr>) -> bool {
    scheme == Scheme::Https || address.is_some_and(|address| !is_public(address.ip()))
}

/// Connects to one of the host's checked addresses. Returns the stream and the address that was reached.
pub(crate) async fn connect(
    target: &Target,
    addresses: &[SocketAddr],
    record: &Arc<Record>,
) -> Result<(CountedStream<TcpStream>, Option<SocketAddr>), ProxyError> {
    let stream = timeout(CONNECT_TIMEOUT, dial::connect(addresses))
        .await
        .map_err(|_| ProxyError::Timeout { target: target.clone(), seconds: CONNECT_TIMEOUT.as_secs() })?
        .map_err(|error| ProxyError::Unreachable { target: target.clone(), cause: error.to_string() })?;
    let address = stream.peer_addr().ok();
    Ok((CountedStream::new(stream, record.clone()), address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_tls_secrets_are_sent_to_private_addresses_only() {
        let at = |text: &str| Some(text.parse().unwrap());
        assert!(allows_secrets(Scheme::Https, at("1.1.1.1:443")));
        assert!(allows_secrets(Scheme::Http, at("10.0.0.1:80")));
        assert!(allows_secrets(Scheme::Http, at("[fd00::1]:80")));
        assert!(!allows_secrets(Scheme::Http, at("1.1.1.1:80")));
        assert!(!allows_secrets(Scheme::Http, at("[::ffff:1.1.1.1]:80")));
        assert!(!allows_secrets(Scheme::Http, None));
        let secrets = [SecretValue {
            secret_id: "sec_key".parse().unwrap(),
            placeholder: "placeholder".to_owned(),
            value: "a-real-value".into(),
            inject: Vec::new(),
        }];
        let peer =
            |allows_secrets| Peer { allows_secrets, sent_values: Mutex::default(), record: Weak::new() };
        assert_eq!(peer(true).sendable(&secrets).len(), 1);
        assert!(peer(false).sendable(&secrets).is_empty());
    }
}
