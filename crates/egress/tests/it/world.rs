//! Test fixture: the proxy, the test deployment that it serves (its owner), and clients that connect to the proxy over
//! in-memory streams.
//!
//! Tokio's clock is frozen, so that no timeout of the proxy expires on a slow machine. Each test must start with a
//! paused clock (`start_paused`).

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use herm_egress::{Authority, Egress, Options, Resolver};
use herm_testkit::time::FrozenTime;
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

pub(crate) type RequestBody = BoxBody<Bytes, std::convert::Infallible>;

/// A DNS resolver for tests. Each lookup of a name returns the next answer that is configured for the name. The last
/// answer is repeated.
#[derive(Default)]
pub(crate) struct TestResolver {
    answers: Mutex<HashMap<String, Vec<Vec<IpAddr>>>>,
    pub(crate) queries: Mutex<Vec<String>>,
}

impl TestResolver {
    pub(crate) fn set(&self, name: &str, answers: &[&[&str]]) {
        let parse = |answer: &&[&str]| answer.iter().map(|address| address.parse().unwrap()).collect();
        self.answers.lock().unwrap().insert(name.to_owned(), answers.iter().map(parse).collect());
    }
}

impl Resolver for TestResolver {
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        self.queries.lock().unwrap().push(host.to_owned());
        let mut answers = self.answers.lock().unwrap();
        let answer = answers
            .get_mut(host)
            .map(|answers| if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() });
        Box::pin(async move { answer.ok_or_else(|| io::Error::other("no such name")) })
    }
}

pub(crate) struct World {
    pub(crate) egress: Egress,
    pub(crate) owner: Arc<TestOwner>,
    pub(crate) names: Arc<TestResolver>,
    pub(crate) hosts: TestAuthority,
    pub(crate) dir: tempfile::TempDir,
    frozen_time: Option<FrozenTime>,
}

impl World {
    /// Creates a world in which `api.test` and `other.test` resolve to 127.0.0.1, an address that the proxy may
    /// reach.
    pub(crate) fn new() -> Self {
        Self::allowing(&["127.0.0.1/32"])
    }

    pub(crate) fn allowing(networks: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let names = Arc::new(TestResolver::default());
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
        let (owner, frozen_time) = (Arc::new(TestOwner::new()), Some(FrozenTime::hold()));
        Self { egress: egress.unwrap(), owner, names, hosts, dir, frozen_time }
    }

    /// Lets the paused clock advance to the next timer whenever the runtime is idle.
    pub(crate) fn unfreeze_time(&mut self) {
        self.frozen_time = None;
    }

    /// Opens a connection to the proxy.
    pub(crate) fn connect(&self) -> DuplexStream {
        let (program, server) = tokio::io::duplex(64 * 1024);
        let (egress, owner) = (self.egress.clone(), self.owner.clone());
        tokio::spawn(async move { egress.serve(server, owner).await });
        program
    }

    /// Sends bytes to the proxy on a new connection. Returns all that the proxy sends back before it closes the
    /// connection.
    pub(crate) async fn send_raw(&self, text: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect();
        stream.write_all(text.as_ref()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    /// Opens a tunnel to `authority` with CONNECT. If the proxy refuses, returns the head of its response as the
    /// error.
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

    /// Opens a TLS connection through a tunnel. If `is_intercepted`, the client trusts only the proxy's certificate
    /// authority (CA). Otherwise it trusts only the CA of the test hosts.
    pub(crate) async fn tls(&self, to: &Tls<'_>) -> io::Result<TlsStream<DuplexStream>> {
        let stream = self.tunnel(to.authority).await.map_err(io::Error::other)?;
        let mut roots = RootCertStore::empty();
        if to.is_intercepted {
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

    /// Returns an HTTP client whose TLS connection to the host is intercepted by the proxy. The TLS handshake
    /// negotiates the HTTP version.
    pub(crate) async fn intercepted(&self, authority: &str, alpn: &[&str]) -> Client {
        let name = authority.split(':').next().unwrap();
        let stream = self.tls(&Tls { authority, name, alpn, is_intercepted: true }).await.unwrap();
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

    /// Returns a client that sends plain HTTP requests to the proxy.
    pub(crate) async fn plain(&self) -> Client {
        let (sender, connection) = http1::handshake(TokioIo::new(self.connect())).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        Client::Http1(sender)
    }
}

/// The parameters of a client's TLS connection through a tunnel.
pub(crate) struct Tls<'a> {
    pub(crate) authority: &'a str,
    pub(crate) name: &'a str,
    pub(crate) alpn: &'a [&'a str],
    pub(crate) is_intercepted: bool,
}

pub(crate) enum Client {
    Http1(http1::SendRequest<RequestBody>),
    Http2(http2::SendRequest<RequestBody>),
}

impl Client {
    pub(crate) async fn send(&mut self, request: Request<RequestBody>) -> Response<Incoming> {
        match self {
            Self::Http1(sender) => {
                sender.ready().await.unwrap();
                sender.send_request(request).await.unwrap()
            }
            Self::Http2(sender) => sender.send_request(request).await.unwrap(),
        }
    }

    /// Sends a request. Returns the status code and the body as text.
    pub(crate) async fn fetch(&mut self, request: Request<RequestBody>) -> (u16, String) {
        let response = self.send(request).await;
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    /// Sends a GET request with these header fields. Returns the status code and the body as text.
    pub(crate) async fn get(&mut self, address: &str, fields: &[(&str, &str)]) -> (u16, String) {
        let request = self.request(address, fields, "");
        self.fetch(request).await
    }

    /// Builds a request to the URI `address`, whose scheme must be `https` if the client's connection uses TLS, and
    /// `http` otherwise. The method is POST if there is a body, and GET otherwise.
    pub(crate) fn request(&self, address: &str, fields: &[(&str, &str)], body: &str) -> Request<RequestBody> {
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
