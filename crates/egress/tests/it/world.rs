//! Egress, its owner, and programs that speak to it over a stream in memory.
//!
//! Time stands still in it, so that no limit of the proxy ends what a busy machine does slowly: each test begins with a
//! paused time.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use herm_egress::{Authority, Egress, Options, Resolver};
use herm_types::network::PrivateTarget;
use herm_types::time::SystemClock;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::owner::TestOwner;
use crate::peer::TestAuthority;

pub(crate) type Sent = BoxBody<Bytes, std::convert::Infallible>;

/// Names and what they resolve to, one answer after the other; the last stays.
#[derive(Default)]
pub(crate) struct Names {
    answers: Mutex<HashMap<String, Vec<Vec<IpAddr>>>>,
    pub(crate) asked: Mutex<Vec<String>>,
}

impl Names {
    pub(crate) fn set(&self, name: &str, answers: &[&[&str]]) {
        let parse = |answer: &&[&str]| answer.iter().map(|address| address.parse().unwrap()).collect();
        self.answers.lock().unwrap().insert(name.to_owned(), answers.iter().map(parse).collect());
    }
}

impl Resolver for Names {
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        self.asked.lock().unwrap().push(host.to_owned());
        let mut answers = self.answers.lock().unwrap();
        let answer = answers
            .get_mut(host)
            .map(|answers| if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() });
        Box::pin(async move { answer.ok_or_else(|| io::Error::other("no such name")) })
    }
}

/// Keeps a paused time from jumping to what is due next, until it is dropped.
struct StandingTime {
    _held: Sender<()>,
}

impl StandingTime {
    fn hold() -> Self {
        let (held, until_dropped) = channel();
        // Tokio lets time jump only when no blocking task is at work.
        tokio::task::spawn_blocking(move || until_dropped.recv());
        Self { _held: held }
    }
}

pub(crate) struct World {
    pub(crate) egress: Egress,
    pub(crate) owner: Arc<TestOwner>,
    pub(crate) names: Arc<Names>,
    pub(crate) hosts: TestAuthority,
    pub(crate) dir: tempfile::TempDir,
    time: Option<StandingTime>,
}

impl World {
    /// `api.test` and `other.test` are at 127.0.0.1, which is allowed.
    pub(crate) fn new() -> Self {
        Self::allowing(&["127.0.0.1/32"])
    }

    pub(crate) fn allowing(networks: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let names = Arc::new(Names::default());
        for name in ["api.test", "other.test"] {
            names.set(name, &[&["127.0.0.1"]]);
        }
        let hosts = TestAuthority::new();
        let network = |network: &&str| PrivateTarget::Network(network.parse().unwrap());
        let authority = Authority::open(dir.path(), Arc::new(SystemClock)).unwrap();
        let egress = Egress::new(Options {
            allowed: networks.iter().map(network).collect::<Vec<_>>().into(),
            extra_roots: vec![hosts.certificate()],
            resolver: names.clone(),
            ..Options::new(authority)
        });
        let (owner, time) = (Arc::new(TestOwner::new()), Some(StandingTime::hold()));
        Self { egress: egress.unwrap(), owner, names, hosts, dir, time }
    }

    /// From now on time jumps to what is due next whenever nothing else is at work.
    pub(crate) fn let_time_go(&mut self) {
        drop(self.time.take());
    }

    /// A program's connection to the proxy.
    pub(crate) fn connect(&self) -> DuplexStream {
        let (program, server) = tokio::io::duplex(64 * 1024);
        let (egress, owner) = (self.egress.clone(), self.owner.clone());
        tokio::spawn(async move { egress.serve(server, owner).await });
        program
    }

    /// Sends bytes and gives all that comes until the proxy ends the connection.
    pub(crate) async fn say(&self, text: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect();
        stream.write_all(text.as_ref()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    /// A tunnel, or the answer that refuses it.
    pub(crate) async fn tunnel(&self, authority: &str) -> Result<DuplexStream, String> {
        let mut stream = self.connect();
        let request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        if head.starts_with("HTTP/1.1 200") { Ok(stream) } else { Err(head) }
    }

    /// A TLS connection through a tunnel; it trusts hosts that are opened, or else the hosts' own certificates.
    pub(crate) async fn tls(&self, to: &Tls<'_>) -> io::Result<TlsStream<DuplexStream>> {
        let stream = self.tunnel(to.authority).await.map_err(io::Error::other)?;
        let mut roots = RootCertStore::empty();
        if to.is_opened {
            let pem = self.egress.authority().ca_pem();
            roots.add_parsable_certificates(CertificateDer::pem_slice_iter(pem.as_bytes()).flatten());
        } else {
            roots.add(self.hosts.certificate()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = to.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(to.name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// A client of an opened host at this authority, of the version that it offers.
    pub(crate) async fn opened(&self, authority: &str, alpn: &[&str]) -> Client {
        let name = authority.split(':').next().unwrap();
        let stream = self.tls(&Tls { authority, name, alpn, is_opened: true }).await.unwrap();
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let io = TokioIo::new(stream);
        if is_http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            return Client::Http2(sender);
        }
        let (sender, connection) = http1::handshake(io).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        Client::Http1(sender)
    }

    /// A client of the proxy itself, for plain HTTP.
    pub(crate) async fn plain(&self) -> Client {
        let (sender, connection) = http1::handshake(TokioIo::new(self.connect())).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        Client::Http1(sender)
    }
}

/// What a TLS connection is to be.
pub(crate) struct Tls<'a> {
    pub(crate) authority: &'a str,
    pub(crate) name: &'a str,
    pub(crate) alpn: &'a [&'a str],
    pub(crate) is_opened: bool,
}

pub(crate) enum Client {
    Http1(http1::SendRequest<Sent>),
    Http2(http2::SendRequest<Sent>),
}

impl Client {
    pub(crate) async fn send(&mut self, request: Request<Sent>) -> Response<Incoming> {
        match self {
            Self::Http1(sender) => {
                sender.ready().await.unwrap();
                sender.send_request(request).await.unwrap()
            }
            Self::Http2(sender) => sender.send_request(request).await.unwrap(),
        }
    }

    /// The status and the whole text that come back.
    pub(crate) async fn ask(&mut self, request: Request<Sent>) -> (u16, String) {
        let response = self.send(request).await;
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    /// GET with these fields; of an address, for the version that the client speaks.
    pub(crate) async fn get(&mut self, address: &str, fields: &[(&str, &str)]) -> (u16, String) {
        let request = self.request(address, fields, "");
        self.ask(request).await
    }

    /// A request for an `https` address as an opened connection takes it, or for an `http` one as the proxy does.
    pub(crate) fn request(&self, address: &str, fields: &[(&str, &str)], body: &str) -> Request<Sent> {
        let uri: http::Uri = address.parse().unwrap();
        let host = uri.authority().unwrap().to_string();
        let mut request = Request::builder().method(if body.is_empty() { "GET" } else { "POST" });
        request = match self {
            Self::Http1(_) if uri.scheme_str() == Some("https") => {
                request.uri(uri.path_and_query().unwrap().as_str()).header("host", host)
            }
            Self::Http1(_) => request.uri(uri).header("host", host),
            Self::Http2(_) => request.uri(uri),
        };
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(Full::new(Bytes::from(body.to_owned())).boxed()).unwrap()
    }
}
