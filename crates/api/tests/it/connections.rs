//! Connections, with raw sockets: who uses one keeps it, who only holds it loses it. Time stands still while something
//! is on its way, however long that takes; let go, it jumps to where the next thing is due.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::routing::get;
use futures_util::{StreamExt as _, stream};
use herm_api::serve;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::time::StandingTime;
use crate::world::World;

const HEALTH: &str = "GET /healthz HTTP/1.1\r\nHost: herm\r\n\r\n";

struct Listening {
    address: SocketAddr,
    close: CancellationToken,
    serving: JoinHandle<()>,
    /// Has the port too, so that no other process is given it once the server listens no more.
    _reserved: TcpSocket,
}

async fn listen(router: axum::Router) -> Listening {
    let reserved = bound("127.0.0.1:0".parse().unwrap());
    let (address, close) = (reserved.local_addr().unwrap(), CancellationToken::new());
    let listener: TcpListener = bound(address).listen(1024).unwrap();
    let serving = tokio::spawn(serve(listener, router, close.clone()));
    Listening { address, close, serving, _reserved: reserved }
}

/// A socket that does not listen; another one may have its address too.
fn bound(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

async fn herm() -> Listening {
    listen(World::new().await.router.clone()).await
}

async fn connect(server: &Listening) -> TcpStream {
    TcpStream::connect(server.address).await.unwrap()
}

/// Everything until the other end closes; how it closes does not matter.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    while !text.contains(end) {
        let byte = stream.read_u8().await.unwrap_or_else(|error| panic!("{error} after {text:?}"));
        text.push(char::from(byte));
    }
    text
}

#[tokio::test(start_paused = true)]
async fn who_sends_nothing_whole_is_dropped() {
    let server = herm().await;
    // Nothing; what may become a preface of HTTP/2; half of a line; half of the headers.
    for begun in
        ["", "P", "PRI * HTTP/2.0\r\n", "GET /healthz HT", "GET /healthz HTTP/1.1\r\nHost: herm\r\nX-A: "]
    {
        let still = StandingTime::hold();
        let start = Instant::now();
        let mut stream = connect(&server).await;
        stream.write_all(begun.as_bytes()).await.unwrap();
        drop(still);
        let told = rest(&mut stream).await;
        assert!(!told.contains("200 OK"), "{begun:?}: {told}");
        assert!(start.elapsed() <= Duration::from_secs(21), "{begun:?}: {:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_comes_byte_by_byte_is_not_waited_for() {
    let server = herm().await;
    let still = StandingTime::hold();
    let start = Instant::now();
    let mut stream = connect(&server).await;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nX-Slow: ").await.unwrap();
    drop(still);
    // Never still for long, and never done. A server that hangs up may be noticed some writes later.
    while start.elapsed() < Duration::from_secs(110) && stream.write_all(b"a").await.is_ok() {
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    // Time passes only while the server still waits for something.
    rest(&mut stream).await;
    assert!(start.elapsed() < Duration::from_secs(120), "it still listened");
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_used_again_and_dropped_when_it_is_idle() {
    let server = herm().await;
    let still = StandingTime::hold();
    let mut stream = connect(&server).await;
    for _ in 0..3 {
        stream.write_all(HEALTH.as_bytes()).await.unwrap();
        assert!(read_until(&mut stream, "\"ok\"}").await.contains("200 OK"));
        tokio::time::advance(Duration::from_secs(30)).await;
    }
    let start = Instant::now();
    drop(still);
    assert_eq!(rest(&mut stream).await, "");
    assert!(start.elapsed() > Duration::from_secs(30) && start.elapsed() < Duration::from_secs(120));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_too_large_is_refused() {
    let server = herm().await;
    let still = StandingTime::hold();
    let mut stream = connect(&server).await;
    let head = format!("GET /healthz HTTP/1.1\r\nHost: herm\r\nX-Large: {}\r\n\r\n", "a".repeat(200_000));
    // It may hang up before all is written.
    let _ = stream.write_all(head.as_bytes()).await;
    drop(still);
    let told = rest(&mut stream).await;
    assert!(told.is_empty() || told.starts_with("HTTP/1.1 431"), "{told}");
    // The server goes on.
    let _still = StandingTime::hold();
    let mut stream = connect(&server).await;
    stream.write_all(HEALTH.as_bytes()).await.unwrap();
    assert!(read_until(&mut stream, "\"ok\"}").await.contains("200 OK"));
}

#[tokio::test(start_paused = true)]
async fn garbage_is_answered_or_dropped_and_harms_nobody() {
    let server = herm().await;
    for garbage in
        [&b"\0\0\0\0\r\n\r\n"[..], b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/9.9\r\n\r\n"]
    {
        let still = StandingTime::hold();
        let mut stream = connect(&server).await;
        stream.write_all(garbage).await.unwrap();
        drop(still);
        let told = rest(&mut stream).await;
        assert!(told.is_empty() || told.starts_with("HTTP/1.1 4"), "{told}");
    }
    let _still = StandingTime::hold();
    let mut stream = connect(&server).await;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: herm\r\nX-Request-Id: a\x01b\r\n\r\n").await.unwrap();
    let told = read_until(&mut stream, "\r\n\r\n").await;
    assert!(told.starts_with("HTTP/1.1 400") || told.contains("x-request-id: req_"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn http_2_is_spoken_and_its_idle_connections_are_dropped() {
    let host = async |headers: http::HeaderMap| headers["host"].to_str().unwrap().to_owned();
    let server = listen(axum::Router::new().route("/host", get(host))).await;
    let still = StandingTime::hold();
    let io = TokioIo::new(connect(&server).await);
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::builder().uri("http://agents.example.com/host");
    let response = client.send_request(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_2);
    let body = axum::body::to_bytes(Body::new(response.into_body()), 1024).await.unwrap();
    assert_eq!(body, "agents.example.com");
    let start = Instant::now();
    drop(still);
    // It answers pings all the while, and asks for nothing more.
    let _ = connection.await.unwrap();
    assert!(start.elapsed() <= Duration::from_secs(80), "{:?}", start.elapsed());
}

/// A body that gives `first` and then nothing for an hour.
fn slow_stream(first: &'static str) -> Body {
    let first = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(first.as_bytes()))]);
    Body::from_stream(first.chain(stream::once(async {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        Ok(Bytes::from_static(b"later"))
    })))
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_silent_for_an_hour_goes_on() {
    let router = axum::Router::new().route("/stream", get(async || slow_stream("now")));
    let server = listen(router).await;
    let still = StandingTime::hold();
    let mut stream = connect(&server).await;
    stream.write_all(b"GET /stream HTTP/1.1\r\nHost: herm\r\n\r\n").await.unwrap();
    read_until(&mut stream, "now").await;
    let start = Instant::now();
    drop(still);
    read_until(&mut stream, "later").await;
    assert!(start.elapsed() >= Duration::from_secs(3600));
}

#[tokio::test(start_paused = true)]
async fn a_body_whose_next_piece_does_not_come_is_broken_off() {
    let (arrived, mut arrivals) = unbounded_channel();
    let count = move |body: Body| {
        let arrived = arrived.clone();
        async move {
            let (mut pieces, mut bytes) = (body.into_data_stream(), 0);
            arrived.send("head").unwrap();
            while let Some(piece) = pieces.next().await {
                match piece {
                    Ok(piece) => bytes += piece.len(),
                    Err(error) => return format!("broken: {error}"),
                }
                arrived.send("piece").unwrap();
            }
            format!("all {bytes}")
        }
    };
    let server = listen(axum::Router::new().route("/count", axum::routing::put(count))).await;
    let still = StandingTime::hold();
    let mut stream = connect(&server).await;
    stream.write_all(b"PUT /count HTTP/1.1\r\nHost: herm\r\nContent-Length: 5\r\n\r\n").await.unwrap();
    assert_eq!(arrivals.recv().await, Some("head"));
    // Slow, but it goes on.
    for _ in 0..5 {
        tokio::time::advance(Duration::from_secs(29)).await;
        stream.write_all(b"x").await.unwrap();
        assert_eq!(arrivals.recv().await, Some("piece"));
    }
    read_until(&mut stream, "all 5").await;
    stream.write_all(b"PUT /count HTTP/1.1\r\nHost: herm\r\nContent-Length: 5\r\n\r\nx").await.unwrap();
    assert_eq!(arrivals.recv().await, Some("head"));
    assert_eq!(arrivals.recv().await, Some("piece"));
    drop(still);
    read_until(&mut stream, "broken").await;
}

#[tokio::test(start_paused = true)]
async fn who_reads_nothing_of_what_is_sent_is_dropped() {
    let (told, mut dropped) = tokio::sync::mpsc::channel::<()>(1);
    let endless = move || {
        let told = told.clone();
        async move {
            Body::from_stream(stream::repeat_with(move || {
                let _ = &told;
                Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 16 * 1024]))
            }))
        }
    };
    let server = listen(axum::Router::new().route("/endless", get(endless))).await;
    let still = StandingTime::hold();
    let mut stream = connect(&server).await;
    stream.write_all(b"GET /endless HTTP/1.1\r\nHost: herm\r\n\r\n").await.unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    let start = Instant::now();
    server.close.cancel();
    drop(still);
    // The server ends only when the stream does, which has no end of its own.
    server.serving.await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(60), "{:?}", start.elapsed());
    assert!(dropped.recv().await.is_none(), "the body is held on to");
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_what_is_under_way_and_drops_what_is_idle() {
    let server = herm().await;
    let still = StandingTime::hold();
    let mut idle = connect(&server).await;
    idle.write_all(HEALTH.as_bytes()).await.unwrap();
    read_until(&mut idle, "\"ok\"}").await;
    let mut begun = connect(&server).await;
    begun.write_all(b"GET /healthz HTTP/1.1\r\nHost").await.unwrap();
    let start = Instant::now();
    server.close.cancel();
    drop(still);
    assert_eq!(rest(&mut idle).await, "");
    rest(&mut begun).await;
    server.serving.await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert!(TcpStream::connect(server.address).await.is_err(), "it listens no more");
}

#[tokio::test(start_paused = true)]
async fn a_stop_lets_a_stream_end_by_itself() {
    let router = axum::Router::new().route("/stream", get(async || slow_stream("now")));
    let server = listen(router).await;
    let still = StandingTime::hold();
    let mut stream = connect(&server).await;
    stream.write_all(b"GET /stream HTTP/1.1\r\nHost: herm\r\n\r\n").await.unwrap();
    read_until(&mut stream, "now").await;
    server.close.cancel();
    drop(still);
    assert!(rest(&mut stream).await.contains("later"));
    server.serving.await.unwrap();
}
