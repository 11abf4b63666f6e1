//! The way to one host: connections made when they are needed, and kept for the next request.

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
use crate::fault::Fault;
use crate::mask::Known;
use crate::record::{Counted, Record};
use crate::sender::{Protocol, Sender};
use crate::serving::{MAX_FIELDS, MAX_HEAD_BYTES};
use crate::session::Session;
use crate::target::Target;
use crate::values::Given;

/// How long a connection may take to be made,
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// and how long TLS may take on it then.
const TLS_LIMIT: Duration = Duration::from_secs(10);
/// How long a connection that was used before may take until it takes the next request; then another is made.
const READY_LIMIT: Duration = Duration::from_secs(1);

/// How a host is spoken to.
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

/// The way to one host, for one connection of a program.
pub(crate) struct Hop {
    pub(crate) session: Session,
    pub(crate) target: Target,
    pub(crate) scheme: Scheme,
    /// The versions of HTTP that are offered, the best first.
    offered: Mutex<Vec<Protocol>>,
    /// Addresses that were checked when the program asked for the host, for the first connection alone.
    checked: Mutex<Option<Vec<SocketAddr>>>,
    /// Waits for the next request.
    idle: tokio::sync::Mutex<Option<Line>>,
    /// What drives the connections; they end with the hop.
    tasks: Mutex<Vec<AbortOnDropHandle<()>>>,
}

/// A connection, ready for a request.
pub(crate) struct Line {
    pub(crate) sender: Sender,
    pub(crate) peer: Arc<Peer>,
}

/// What is known about the other end of a connection.
pub(crate) struct Peer {
    /// Nobody on the way can read along: it is TLS, or the operator's own network.
    takes_values: bool,
    pub(crate) known: Mutex<Known>,
    /// Of the connection, while it lasts.
    record: Weak<Record>,
}

impl Peer {
    /// Of the values that the host is allowed, those that may go over this connection.
    pub(crate) fn may_be_sent<'a>(&self, given: &'a [Given]) -> &'a [Given] {
        if self.takes_values { given } else { &[] }
    }

    /// The connection's record, if it has not ended. Whoever holds it can still say why a request was not answered.
    pub(crate) fn record(&self) -> Option<Arc<Record>> {
        self.record.upgrade()
    }
}

impl Hop {
    pub(crate) fn new(session: Session, target: Target, scheme: Scheme) -> Self {
        Self {
            session,
            target,
            scheme,
            offered: Mutex::new(vec![Protocol::Http1]),
            checked: Mutex::default(),
            idle: tokio::sync::Mutex::default(),
            tasks: Mutex::default(),
        }
    }

    /// The first connection goes to these addresses.
    pub(crate) fn with_checked(self, addresses: Vec<SocketAddr>) -> Self {
        Self { checked: Mutex::new(Some(addresses)), ..self }
    }

    pub(crate) fn offer(&self, protocols: Vec<Protocol>) {
        *self.offered.lock().unwrap_or_else(PoisonError::into_inner) = protocols;
    }

    /// Makes the first connection ahead of the first request; gives what it speaks.
    pub(crate) async fn prepare(&self) -> Result<Protocol, Fault> {
        let line = self.dial().await?;
        let protocol = line.sender.protocol();
        *self.idle.lock().await = Some(line);
        Ok(protocol)
    }

    /// A connection: the one that waits, or another.
    pub(crate) async fn line(&self) -> Result<Line, Fault> {
        let mut idle = self.idle.lock().await;
        if let Some(mut line) = idle.take()
            && matches!(timeout(READY_LIMIT, line.sender.ready()).await, Ok(Ok(())))
        {
            if let Some(sender) = line.sender.shared() {
                *idle = Some(Line { sender, peer: line.peer.clone() });
            }
            return Ok(line);
        }
        let line = self.dial().await?;
        if let Some(sender) = line.sender.shared() {
            *idle = Some(Line { sender, peer: line.peer.clone() });
        }
        Ok(line)
    }

    /// Keeps a connection for the next request.
    pub(crate) async fn keep(&self, line: Line) {
        if line.sender.shared().is_none() {
            *self.idle.lock().await = Some(line);
        }
    }

    async fn dial(&self) -> Result<Line, Fault> {
        let checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner).take();
        let addresses = match checked {
            Some(addresses) => addresses,
            None => self.session.addresses(&self.target).await?,
        };
        let record = self.session.allow(&self.target).await?;
        let line = self.connect(&addresses, &record).await;
        line.inspect_err(|fault| record.fail(fault))
    }

    async fn connect(&self, addresses: &[SocketAddr], record: &Arc<Record>) -> Result<Line, Fault> {
        let (stream, address) = connect(&self.target, addresses, record).await?;
        let takes_values = takes_values(self.scheme, address);
        let peer = Arc::new(Peer { takes_values, known: Mutex::default(), record: Arc::downgrade(record) });
        let sender = match self.scheme {
            Scheme::Http => self.speak_http1(stream, record).await?,
            Scheme::Https => self.speak_tls(stream, record).await?,
        };
        Ok(Line { sender, peer })
    }

    async fn speak_tls(&self, stream: Counted<TcpStream>, record: &Arc<Record>) -> Result<Sender, Fault> {
        let offered = self.offered.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let protocols = offered.iter().map(|protocol| protocol.alpn().to_vec()).collect();
        let connector = TlsConnector::from(self.session.shared.to_hosts.clone());
        let connecting = connector.with_alpn(protocols).connect(self.target.server_name()?, stream);
        let seconds = TLS_LIMIT.as_secs();
        let stream = timeout(TLS_LIMIT, connecting)
            .await
            .map_err(|_| Fault::Slow { target: self.target.clone(), seconds })?
            .map_err(|error| Fault::Tls { target: self.target.clone(), why: error.to_string() })?;
        match stream.get_ref().1.alpn_protocol() {
            Some(name) if name == Protocol::Http2.alpn() => self.speak_http2(stream, record).await,
            _ => self.speak_http1(stream, record).await,
        }
    }

    async fn speak_http1<S>(&self, stream: S, record: &Arc<Record>) -> Result<Sender, Fault>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::Builder::new()
            .max_header_size(MAX_HEAD_BYTES)
            .max_headers(MAX_FIELDS)
            .handshake::<_, Body>(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(&error))?;
        self.drive(connection.with_upgrades(), record);
        Ok(Sender::Http1(sender))
    }

    async fn speak_http2<S>(&self, stream: S, record: &Arc<Record>) -> Result<Sender, Fault>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX))
            .handshake::<_, Body>(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(&error))?;
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

    pub(crate) fn broken(&self, error: &hyper::Error) -> Fault {
        Fault::Broken { target: self.target.clone(), why: error.to_string() }
    }
}

/// Without TLS a value goes to a private address alone, which is one that the operator allows.
fn takes_values(scheme: Scheme, address: Option<SocketAddr>) -> bool {
    scheme == Scheme::Https || address.is_some_and(|address| !is_public(address.ip()))
}

/// A connection to one of these addresses, and which.
pub(crate) async fn connect(
    target: &Target,
    addresses: &[SocketAddr],
    record: &Arc<Record>,
) -> Result<(Counted<TcpStream>, Option<SocketAddr>), Fault> {
    let stream = timeout(CONNECT_LIMIT, dial::connect(addresses))
        .await
        .map_err(|_| Fault::Slow { target: target.clone(), seconds: CONNECT_LIMIT.as_secs() })?
        .map_err(|error| Fault::Unreachable { target: target.clone(), why: error.to_string() })?;
    let address = stream.peer_addr().ok();
    Ok((Counted::new(stream, record.clone()), address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_tls_a_value_goes_to_private_addresses_alone() {
        let at = |text: &str| Some(text.parse().unwrap());
        assert!(takes_values(Scheme::Https, at("1.1.1.1:443")));
        assert!(takes_values(Scheme::Http, at("10.0.0.1:80")));
        assert!(takes_values(Scheme::Http, at("[fd00::1]:80")));
        assert!(!takes_values(Scheme::Http, at("1.1.1.1:80")));
        assert!(!takes_values(Scheme::Http, at("[::ffff:1.1.1.1]:80")));
        assert!(!takes_values(Scheme::Http, None));
        let given = [Given {
            secret_id: "sec_key".parse().unwrap(),
            placeholder: "placeholder".to_owned(),
            value: "a-real-value".into(),
            inject: Vec::new(),
        }];
        let peer = |takes_values| Peer { takes_values, known: Mutex::default(), record: Weak::new() };
        assert_eq!(peer(true).may_be_sent(&given).len(), 1);
        assert!(peer(false).may_be_sent(&given).is_empty());
    }
}
