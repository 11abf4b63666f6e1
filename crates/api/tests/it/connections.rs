//! Tests of connection timeouts and of shutdown, with raw sockets. The tests use a simulated clock, which jumps to the
//! next timer when all tasks are waiting. A test freezes the clock while bytes are in transit, so that timeouts do not
//! depend on the speed of the machine.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::routing::get;
use futures_util::{StreamExt as _, stream};
use herm_api::serve;
use herm_testkit::time::FrozenTime;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::world::World;

const HEALTH: &str = "GET /healthz HTTP/1.1\r\nHost: herm\r\n\r\n";

struct Server {
    address: SocketAddr,
    close: CancellationToken,
    serving: JoinHandle<()>,
    /// A bound socket that reserves the server's port, so that no other process can use it after the server has stopped
    /// listening.
    _reserved: TcpSocket,
}

async fn start_server(router: axum::Router) -> Server {
    let reserved = bind("127.0.0.1:0".parse().unwrap());
    let (address, close) = (reserved.local_addr().unwrap(), CancellationToken::new());
    let listener: TcpListener = bind(address).listen(1024).unwrap();
    let serving = tokio::spawn(serve(listener, router, close.clone()));
    Server { address, close, serving, _reserved: reserved }
}

/// Binds a socket to the address without listening. `SO_REUSEADDR` lets other sockets bind to the same address.
fn bind(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

async fn start_herm() -> Server {
    start_server(World::new().await.router.clone()).await
}

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.address).await.unwrap()
}

/// Reads until the server closes the connection, either cleanly or with a reset. Returns the received text.
async fn read_to_close(stream: &mut TcpStream) -> String {
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
async fn a_connection_without_a_complete_request_is_closed() {
    let server = start_herm().await;
    // Each case is an incomplete request: nothing, a part of the HTTP/2 preface, a part of the request line, or a part
    // of the headers.
    for partial in
        ["", "P", "PRI * HTTP/2.0\r\n", "GET /healthz HT", "GET /healthz HTTP/1.1\r\nHost: herm\r\nX-A: "]
    {
        let frozen = FrozenTime::hold();
        let start = Instant::now();
        let mut stream = connect(&server).await;
        stream.write_all(partial.as_bytes()).await.unwrap();
        drop(frozen);
        let received = read_to_close(&mut stream).await;
        assert!(!received.contains("200 OK"), "{partial:?}: {received}");
        assert!(start.elapsed() <= Duration::from_secs(21), "{partial:?}: {:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn headers_sent_byte_by_byte_time_out() {
    let server = start_herm().await;
    let frozen = FrozenTime::hold();
    let start = Instant::now();
    let mut stream = connect(&server).await;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nX-Slow: ").await.unwrap();
    drop(frozen);
    // The client sends one byte at a time and never completes the request. The loop also ends after a fixed time,
    // because a write may succeed even after the server has closed the connection.
    while start.elapsed() < Duration::from_secs(110) && stream.write_all(b"a").await.is_ok() {
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    // This returns immediately if the server has closed the connection. Otherwise, the read waits and the clock
    // advances beyond the limit that the test asserts.
    read_to_close(&mut stream).await;
    assert!(start.elapsed() < Duration::from_secs(120), "the connection was still open");
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_reused_and_closed_when_idle() {
    let server = start_herm().await;
    let frozen = FrozenTime::hold();
    let mut stream = connect(&server).await;
    for _ in 0..3 {
        stream.write_all(HEALTH.as_bytes()).await.unwrap();
        assert!(read_until(&mut stream, "\"ok\"}").await.contains("200 OK"));
        tokio::time::advance(Duration::from_secs(30)).await;
    }
    let start = Instant::now();
    drop(frozen);
    assert_eq!(read_to_close(&mut stream).await, "");
    assert!(start.elapsed() > Duration::from_secs(30) && start.elapsed() < Duration::from_secs(120));
}

#[tokio::test(start_paused = true)]
async fn headers_that_are_too_large_are_rejected() {
    let server = start_herm().await;
    let frozen = FrozenTime::hold();
    let mut stream = connect(&server).await;
    let head = format!("GET /healthz HTTP/1.1\r\nHost: herm\r\nX-Large: {}\r\n\r\n", "a".repeat(200_000));
    // The write may fail, because the server may close the connection before everything is written.
    let _ = stream.write_all(head.as_bytes()).await;
    drop(frozen);
    let received = read_to_close(&mut stream).await;
    assert!(received.is_empty() || received.starts_with("HTTP/1.1 431"), "{received}");
    // The server still serves other connections.
    let _frozen = FrozenTime::hold();
    let mut stream = connect(&server).await;
    stream.write_all(HEALTH.as_bytes()).await.unwrap();
    assert!(read_until(&mut stream, "\"ok\"}").await.contains("200 OK"));
}

#[tokio::test(start_paused = true)]
async fn garbage_gets_an_error_or_a_close_and_does_not_affect_other_connections() {
    let server = start_herm().await;
    for garbage in
        [&b"\0\0\0\0\r\n\r\n"[..], b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/9.9\r\n\r\n"]
    {
        let frozen = FrozenTime::hold();
        let mut stream = connect(&server).await;
        stream.write_all(garbage).await.unwrap();
        drop(frozen);
        let received = read_to_close(&mut stream).await;
        assert!(received.is_empty() || received.starts_with("HTTP/1.1 4"), "{received}");
    }
    let _frozen = FrozenTime::hold();
    let mut stream = connect(&server).await;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: herm\r\nX-Request-Id: a\x01b\r\n\r\n").await.unwrap();
    let received = read_until(&mut stream, "\r\n\r\n").await;
    assert!(received.starts_with("HTTP/1.1 400") || received.contains("x-request-id: req_"), "{received}");
}

#[tokio::test(start_paused = true)]
async fn http_2_is_supported_and_its_idle_connections_are_closed() {
    let host = async |headers: http::HeaderMap| headers["host"].to_str().unwrap().to_owned();
    let server = start_server(axum::Router::new().route("/host", get(host))).await;
    let frozen = FrozenTime::hold();
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
    drop(frozen);
    // Waits until the server closes the HTTP/2 connection. The client answers the server's pings, but sends no further
    // request.
    let _ = connection.await.unwrap();
    assert!(start.elapsed() <= Duration::from_secs(80), "{:?}", start.elapsed());
}

/// Returns a body that sends the text `first`, then nothing for an hour, and then the text "later".
fn slow_stream(first: &'static str) -> Body {
    let first = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(first.as_bytes()))]);
    Body::from_stream(first.chain(stream::once(async {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        Ok(Bytes::from_static(b"later"))
    })))
}

#[tokio::test(start_paused = true)]
async fn a_response_stream_that_is_idle_for_an_hour_stays_open() {
    let router = axum::Router::new().route("/stream", get(async || slow_stream("now")));
    let server = start_server(router).await;
    let frozen = FrozenTime::hold();
    let mut stream = connect(&server).await;
    stream.write_all(b"GET /stream HTTP/1.1\r\nHost: herm\r\n\r\n").await.unwrap();
    read_until(&mut stream, "now").await;
    let start = Instant::now();
    drop(frozen);
    read_until(&mut stream, "later").await;
    assert!(start.elapsed() >= Duration::from_secs(3600));
}

#[tokio::test(start_paused = true)]
async fn a_request_body_that_stalls_times_out() {
    let (arrived, mut arrivals) = unbounded_channel();
    let count = move |body: Body| {
        let arrived = arrived.clone();
        async move {
            let (mut chunks, mut bytes) = (body.into_data_stream(), 0);
            arrived.send("head").unwrap();
            while let Some(chunk) = chunks.next().await {
                match chunk {
                    Ok(chunk) => bytes += chunk.len(),
                    Err(error) => return format!("broken: {error}"),
                }
                arrived.send("chunk").unwrap();
            }
            format!("all {bytes}")
        }
    };
    let server = start_server(axum::Router::new().route("/count", axum::routing::put(count))).await;
    let frozen = FrozenTime::hold();
    let mut stream = connect(&server).await;
    stream.write_all(b"PUT /count HTTP/1.1\r\nHost: herm\r\nContent-Length: 5\r\n\r\n").await.unwrap();
    assert_eq!(arrivals.recv().await, Some("head"));
    // A slow body is accepted if each chunk arrives within the timeout.
    for _ in 0..5 {
        tokio::time::advance(Duration::from_secs(29)).await;
        stream.write_all(b"x").await.unwrap();
        assert_eq!(arrivals.recv().await, Some("chunk"));
    }
    read_until(&mut stream, "all 5").await;
    stream.write_all(b"PUT /count HTTP/1.1\r\nHost: herm\r\nContent-Length: 5\r\n\r\nx").await.unwrap();
    assert_eq!(arrivals.recv().await, Some("head"));
    assert_eq!(arrivals.recv().await, Some("chunk"));
    drop(frozen);
    read_until(&mut stream, "broken").await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_the_response_is_disconnected() {
    let (body_guard, mut body_dropped) = tokio::sync::mpsc::channel::<()>(1);
    let endless = move || {
        let body_guard = body_guard.clone();
        async move {
            Body::from_stream(stream::repeat_with(move || {
                let _ = &body_guard;
                Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 16 * 1024]))
            }))
        }
    };
    let server = start_server(axum::Router::new().route("/endless", get(endless))).await;
    let frozen = FrozenTime::hold();
    let mut stream = connect(&server).await;
    stream.write_all(b"GET /endless HTTP/1.1\r\nHost: herm\r\n\r\n").await.unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    let start = Instant::now();
    server.close.cancel();
    drop(frozen);
    // The shutdown waits for the response, which never ends by itself. The client does not read the response, so the
    // write timeout closes the connection.
    server.serving.await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(60), "{:?}", start.elapsed());
    assert!(body_dropped.recv().await.is_none(), "the body was not dropped");
}

#[tokio::test(start_paused = true)]
async fn shutdown_closes_idle_connections_and_incomplete_requests() {
    let server = start_herm().await;
    let frozen = FrozenTime::hold();
    let mut idle = connect(&server).await;
    idle.write_all(HEALTH.as_bytes()).await.unwrap();
    read_until(&mut idle, "\"ok\"}").await;
    let mut incomplete = connect(&server).await;
    incomplete.write_all(b"GET /healthz HTTP/1.1\r\nHost").await.unwrap();
    let start = Instant::now();
    server.close.cancel();
    drop(frozen);
    assert_eq!(read_to_close(&mut idle).await, "");
    read_to_close(&mut incomplete).await;
    server.serving.await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert!(TcpStream::connect(server.address).await.is_err(), "the server still accepts connections");
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_active_streams() {
    let router = axum::Router::new().route("/stream", get(async || slow_stream("now")));
    let server = start_server(router).await;
    let frozen = FrozenTime::hold();
    let mut stream = connect(&server).await;
    stream.write_all(b"GET /stream HTTP/1.1\r\nHost: herm\r\n\r\n").await.unwrap();
    read_until(&mut stream, "now").await;
    server.close.cancel();
    drop(frozen);
    assert!(read_to_close(&mut stream).await.contains("later"));
    server.serving.await.unwrap();
}
