use std::sync::Arc;

use herm_types::secret::Inject;
use http::header::AUTHORIZATION;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::mpsc;

use crate::peer::{Peer, ReplyBody, echo, text};
use crate::world::{Tls, World};

const VALUE: &str = "sk-live-0123456789";

/// Starts a TLS host that sends the text of each received request to the returned channel, and responds with a
/// constant body.
async fn recording_host(world: &World, name: &str, alpn: &[&str]) -> (Peer, mpsc::UnboundedReceiver<String>) {
    let (sender, requests) = mpsc::unbounded_channel();
    let sender = Arc::new(sender);
    let answer = move |request: Request<Incoming>| {
        let sender = sender.clone();
        async move {
            let shown: Response<ReplyBody> = echo(request).await;
            let bytes = shown.into_body().collect().await.unwrap().to_bytes();
            sender.send(String::from_utf8(bytes.to_vec()).unwrap()).unwrap();
            Response::new(text("thanks"))
        }
    };
    let tls = world.hosts.tls(&[name], alpn);
    (Peer::start("127.0.0.1", Some(tls), answer).await, requests)
}

#[tokio::test(start_paused = true)]
async fn a_header_secret_is_injected_for_its_host_over_http1_and_http2() {
    let world = World::new();
    for alpn in ["http/1.1", "h2"] {
        let (peer, mut requests) = recording_host(&world, "api.test", &[alpn]).await;
        let at = format!("api.test:{}", peer.port());
        let placeholder = world.owner.set_secret("key", VALUE, &["api.test"], &[Inject::Header]);
        let other = world.owner.set_secret("other", "another-value", &["other.test"], &[Inject::Header]);
        let mut client = world.intercepted(&at, &["h2", "http/1.1"]).await;
        let fields = [
            ("authorization", format!("Bearer {placeholder}")),
            ("x-two", format!("{other} {placeholder}")),
            ("cookie", format!("a=b; key={placeholder}")),
        ];
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let (status, _) = client.get(&format!("https://{at}/{placeholder}?k={placeholder}"), &fields).await;
        assert_eq!(status, 200);
        let received = requests.recv().await.unwrap();
        assert!(received.starts_with(if alpn == "h2" { "HTTP/2.0" } else { "HTTP/1.1" }), "{received}");
        assert!(received.contains(&format!("authorization: Bearer {VALUE}\n")), "{received}");
        assert!(
            received.contains(&format!("x-two: {other} {VALUE}\n")),
            "the secret of another host is not injected: {received}"
        );
        assert!(received.contains(&format!("cookie: a=b; key={VALUE}\n")), "{received}");
        assert!(
            received.contains(&format!("/{placeholder}?k={placeholder}\n")),
            "a header secret is not injected into the URI: {received}"
        );
        world.owner.remove_secrets();
    }
}

#[tokio::test(start_paused = true)]
async fn secrets_are_injected_into_basic_credentials() {
    let world = World::new();
    let (peer, mut requests) = recording_host(&world, "api.test", &["http/1.1"]).await;
    let at = format!("api.test:{}", peer.port());
    let placeholder = world.owner.set_secret("key", VALUE, &["api.test"], &[Inject::Header]);
    let mut client = world.intercepted(&at, &[]).await;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let credentials = format!("Basic {}", STANDARD.encode(format!("user:{placeholder}")));
    client.get(&format!("https://{at}/"), &[(AUTHORIZATION.as_str(), &credentials)]).await;
    let expected = format!("authorization: Basic {}\n", STANDARD.encode(format!("user:{VALUE}")));
    let received = requests.recv().await.unwrap();
    assert!(received.contains(&expected), "{received}");
}

#[tokio::test(start_paused = true)]
async fn secrets_are_injected_into_uri_and_body_if_allowed() {
    let world = World::new();
    let (peer, mut requests) = recording_host(&world, "api.test", &["h2", "http/1.1"]).await;
    let at = format!("api.test:{}", peer.port());
    let value = "a+b/c\"d 0123";
    let placeholder = world.owner.set_secret("key", value, &["api.test"], &[Inject::Query, Inject::Body]);
    for alpn in ["http/1.1", "h2"] {
        let mut client = world.intercepted(&at, &[alpn]).await;
        let address = format!("https://{at}/x?k={placeholder}");
        let body = format!("{{\"k\": \"{placeholder}\"}}");
        let fields = [("content-type", "application/json"), ("x-key", placeholder.as_str())];
        let request = client.request(&address, &fields, &body);
        assert_eq!(client.fetch(request).await.0, 200);
        let received = requests.recv().await.unwrap();
        assert!(received.contains("/x?k=a%2Bb%2Fc%22d%200123\n"), "{received}");
        assert!(received.contains(&format!("x-key: {placeholder}\n")), "{received}");
        let expected = "{\"k\": \"a+b/c\\\"d 0123\"}";
        assert!(received.ends_with(&format!("\n\n{expected}")), "{received}");
        assert!(received.contains(&format!("content-length: {}\n", expected.len())), "{received}");
        let long = format!("{}&k={placeholder}", "x".repeat(400_000));
        let request =
            client.request(&address, &[("content-type", "application/x-www-form-urlencoded")], &long);
        assert_eq!(client.fetch(request).await.0, 200);
        let received = requests.recv().await.unwrap();
        assert!(received.ends_with("xxx&k=a%2Bb%2Fc%22d%200123"), "…{}", &received[received.len() - 100..]);
        assert!(!received.contains("content-length"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_changed_value_is_injected_from_the_next_request_on() {
    let world = World::new();
    let (peer, mut requests) = recording_host(&world, "api.test", &["h2"]).await;
    let at = format!("api.test:{}", peer.port());
    let mut client = {
        world.owner.set_secret("key", "the-first-value", &["api.test"], &[Inject::Header]);
        world.intercepted(&at, &["h2"]).await
    };
    for value in ["the-first-value", "the-second-value"] {
        let placeholder = world.owner.set_secret("key", value, &["api.test"], &[Inject::Header]);
        client.get(&format!("https://{at}/"), &[("x-key", &placeholder)]).await;
        assert!(requests.recv().await.unwrap().contains(&format!("x-key: {value}\n")));
    }
    assert_eq!(peer.connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_for_another_host_on_an_intercepted_connection_is_refused() {
    let world = World::new();
    let (peer, mut requests) = recording_host(&world, "api.test", &["h2", "http/1.1"]).await;
    let at = format!("api.test:{}", peer.port());
    world.owner.set_secret("key", VALUE, &["api.test", "other.test"], &[Inject::Header]);
    for (alpn, address, fields) in [
        ("h2", format!("https://other.test:{}/", peer.port()), vec![]),
        ("h2", "https://api.test/".to_owned(), vec![]),
        ("h2", format!("https://{at}/"), vec![("host", "other.test")]),
        ("http/1.1", format!("https://other.test:{}/", peer.port()), vec![]),
        ("http/1.1", "https://api.test/".to_owned(), vec![]),
        ("http/1.1", format!("https://{at}/"), vec![("host", "other.test")]),
        // The host name is correct, but the request contains two `Host` header fields.
        ("http/1.1", format!("https://{at}/"), vec![("host", at.as_str())]),
    ] {
        let (status, text) = world.intercepted(&at, &[alpn]).await.get(&address, &fields).await;
        assert_eq!(status, 403, "{alpn} {address} {fields:?}: {text}");
        assert!(text.contains("the host in the request differs from api.test"), "{text}");
    }
    assert_eq!(world.owner.denials().len(), 7);
    assert!(requests.try_recv().is_err(), "the host received nothing");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_for_another_host_is_refused() {
    let world = World::new();
    let (peer, _requests) = recording_host(&world, "api.test", &["h2", "http/1.1"]).await;
    let at = format!("api.test:{}", peer.port());
    let by_address = format!("127.0.0.1:{}", peer.port());
    world.owner.set_secret("key", VALUE, &["api.test", "127.0.0.1"], &[Inject::Header]);
    // A client sends no server name in the TLS handshake if the host is an IP address.
    for (authority, name) in [(&at, "other.test"), (&at, "127.0.0.1"), (&by_address, "api.test")] {
        let to = Tls { authority, name, alpn: &[], is_intercepted: true };
        assert!(world.tls(&to).await.is_err(), "{authority} as {name}");
    }
    assert_eq!(world.owner.denials().len(), 3);
    assert_eq!(peer.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_host_without_a_trusted_certificate_receives_nothing() {
    let world = World::new();
    let (wrong_name, _requests) = recording_host(&world, "other.test", &["h2", "http/1.1"]).await;
    let (stranger, _requests) = {
        let (sender, requests) = mpsc::unbounded_channel::<()>();
        let tls = World::new().hosts.tls(&["api.test"], &["http/1.1"]);
        let answer = move |_| {
            let sender = sender.clone();
            async move {
                let _ = sender.send(());
                Response::new(text(""))
            }
        };
        (Peer::start("127.0.0.1", Some(tls), answer).await, requests)
    };
    let plain = Peer::start("127.0.0.1", None, echo).await;
    let placeholder = world.owner.set_secret("key", VALUE, &["api.test"], &[Inject::Header]);
    for peer in [&wrong_name, &stranger, &plain] {
        let at = format!("api.test:{}", peer.port());
        let mut client = world.intercepted(&at, &["http/1.1"]).await;
        for _ in 0..2 {
            let (status, text) = client.get(&format!("https://{at}/"), &[("x-key", &placeholder)]).await;
            assert_eq!(status, 502, "{text}");
            assert!(text.contains("TLS handshake with api.test"), "{text}");
        }
    }
    let ended = world.owner.ended(6).await;
    assert!(ended.iter().all(|(_, traffic)| traffic.error.is_some()), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_value_with_control_characters_or_too_short_is_refused_and_recorded() {
    let world = World::new();
    let (peer, mut requests) = recording_host(&world, "api.test", &["http/1.1"]).await;
    let at = format!("api.test:{}", peer.port());
    for (value, reason) in [("one\r\nX-Evil: two", "control characters"), ("short", "shorter than 8 bytes")] {
        let placeholder = world.owner.set_secret("key", value, &["api.test"], &[Inject::Header]);
        let mut client = world.intercepted(&at, &[]).await;
        let (status, text) = client.get(&format!("https://{at}/"), &[("x-key", &placeholder)]).await;
        assert_eq!(status, 403);
        assert!(text.contains(reason) && text.contains("sec_key"), "{text}");
        assert!(world.owner.denials().last().unwrap().contains(reason));
        assert!(requests.try_recv().is_err());
        assert_eq!(
            client.get(&format!("https://{at}/"), &[]).await.0,
            200,
            "a request without the secret succeeds"
        );
        requests.recv().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn without_tls_secrets_are_sent_to_allowed_private_addresses() {
    let world = World::new();
    let (sender, mut requests) = mpsc::unbounded_channel();
    let peer = Peer::start("127.0.0.1", None, move |request: Request<Incoming>| {
        let key = request.headers().get("x-key").map(|key| key.to_str().unwrap().to_owned());
        sender.send(key).unwrap();
        async { Response::new(text("thanks")) }
    })
    .await;
    let at = format!("api.test:{}", peer.port());
    let placeholder = world.owner.set_secret("key", VALUE, &["api.test"], &[Inject::Header]);
    let address = format!("http://{at}/");
    world.plain().await.get(&address, &[("x-key", &placeholder)]).await;
    assert_eq!(requests.recv().await.unwrap().unwrap(), VALUE);
    // Some programs send plain HTTP through a CONNECT tunnel. Secrets are injected there too.
    let stream = world.tunnel(&at).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let mut client = crate::world::Client::Http1(sender);
    let request = Request::builder().uri("/").header("host", &at).header("x-key", &placeholder);
    let body = http_body_util::Empty::new().boxed();
    assert_eq!(client.fetch(request.body(body).unwrap()).await, (200, "thanks".to_owned()));
    assert_eq!(requests.recv().await.unwrap().unwrap(), VALUE);
}

/// A writer that captures the log output.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn secret_values_do_not_appear_in_trace_logs_or_records() {
    let log = Log::default();
    let written = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || written.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let world = World::new();
    let tls = world.hosts.tls(&["api.test"], &["h2", "http/1.1"]);
    let peer = Peer::start("127.0.0.1", Some(tls), echo).await;
    let at = format!("api.test:{}", peer.port());
    let inject = [Inject::Header, Inject::Query, Inject::Body];
    let placeholder = world.owner.set_secret("key", VALUE, &["api.test"], &inject);
    for alpn in ["http/1.1", "h2"] {
        let mut client = world.intercepted(&at, &[alpn]).await;
        let address = format!("https://{at}/?k={placeholder}");
        let request = client.request(&address, &[("x-key", &placeholder)], &placeholder);
        let (_, seen) = client.fetch(request).await;
        assert_eq!(seen.matches(&placeholder).count(), 3, "{seen}");
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("h2"), "nothing was logged");
    assert!(!log.contains(VALUE) && !log.contains("0123456789"));
    let recorded = format!("{:?} {:?}", world.owner.attempts(), world.owner.ended(1).await);
    assert!(!recorded.contains("0123456789"), "{recorded}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_closed_by_the_host_is_replaced() {
    let world = World::new();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(world.hosts.tls(&["api.test"], &["http/1.1"])));
    let peer = Peer::raw("127.0.0.1", move |stream| {
        let acceptor = acceptor.clone();
        async move {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            let mut stream = acceptor.accept(stream).await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            stream.shutdown().await.unwrap();
        }
    })
    .await;
    let at = format!("api.test:{}", peer.port());
    world.owner.set_secret("key", VALUE, &["api.test"], &[Inject::Header]);
    let mut client = world.intercepted(&at, &[]).await;
    for times in 1..=3 {
        assert_eq!(client.get(&format!("https://{at}/"), &[]).await, (200, "ok".to_owned()));
        world.owner.ended(times).await;
        assert_eq!(
            (peer.connections(), world.owner.attempts().len()),
            (times, times),
            "each connection is recorded"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn concurrent_http2_requests_share_a_connection() {
    let world = World::new();
    let entered = Arc::new(tokio::sync::Barrier::new(20));
    let tls = world.hosts.tls(&["api.test"], &["h2"]);
    let peer = Peer::start("127.0.0.1", Some(tls), move |_| {
        let entered = entered.clone();
        async move {
            // Responds only after all 20 requests have arrived, so that all of them are open at the same time.
            entered.wait().await;
            Response::new(text("ok"))
        }
    })
    .await;
    let at = format!("api.test:{}", peer.port());
    world.owner.set_secret("key", VALUE, &["api.test"], &[Inject::Header]);
    let crate::world::Client::Http2(sender) = world.intercepted(&at, &["h2"]).await else { panic!("no h2") };
    let ask = |_| {
        let mut client = crate::world::Client::Http2(sender.clone());
        let address = format!("https://{at}/");
        async move { client.get(&address, &[]).await.0 }
    };
    let answers = futures_util::future::join_all((0..20).map(ask)).await;
    assert_eq!(answers, [200; 20]);
    assert_eq!(peer.connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_host_given_as_an_ip_address_is_intercepted() {
    let world = World::new();
    let (peer, mut requests) = recording_host(&world, "127.0.0.1", &["http/1.1"]).await;
    let placeholder = world.owner.set_secret("key", VALUE, &["127.0.0.1"], &[Inject::Header]);
    // `2130706433` is 127.0.0.1 written as one decimal number.
    let stream = {
        let authority = format!("2130706433:{}", peer.port());
        world
            .tls(&Tls { authority: &authority, name: "127.0.0.1", alpn: &[], is_intercepted: true })
            .await
            .unwrap()
    };
    let io = hyper_util::rt::TokioIo::new(stream);
    let (sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let mut client = crate::world::Client::Http1(sender);
    let address = format!("https://127.0.0.1:{}/", peer.port());
    assert_eq!(client.get(&address, &[("x-key", &placeholder)]).await.0, 200);
    assert!(requests.recv().await.unwrap().contains(&format!("x-key: {VALUE}\n")));
}

#[tokio::test(start_paused = true)]
async fn aborting_a_request_closes_the_connection_to_the_host() {
    let world = World::new();
    let (request_tx, mut request_rx) = mpsc::unbounded_channel();
    let tls = world.hosts.tls(&["api.test"], &["h2", "http/1.1"]);
    let peer = Peer::start("127.0.0.1", Some(tls), move |_| {
        request_tx.send(()).unwrap();
        std::future::pending::<Response<ReplyBody>>()
    })
    .await;
    let at = format!("api.test:{}", peer.port());
    world.owner.set_secret("key", VALUE, &["api.test"], &[Inject::Header]);
    for (count, alpn) in [(1, "http/1.1"), (2, "h2")] {
        let mut client = world.intercepted(&at, &[alpn]).await;
        let address = format!("https://{at}/");
        let waiting = tokio::spawn(async move { client.get(&address, &[]).await });
        request_rx.recv().await.unwrap();
        waiting.abort();
        assert_eq!(world.owner.ended(count).await.len(), count, "{alpn}");
    }
}
