//! Tests that fetch documents from a server on a loopback address, which counts as private.

#![cfg(test)]

use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect};
use axum::routing::get;
use futures_util::stream;
use herm_outbound::{AllowedAddresses, Error, Fetcher, MAX_REDIRECTS};
use herm_testkit::time::FrozenTime;
use herm_types::network::PrivateTarget;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpSocket};
use url::Url;

const LIMIT: usize = 1000;

/// Starts a server, freezes Tokio's clock, and returns the server's address. The name of each path describes
/// how the server responds to it: for example, `/loop` redirects to itself.
async fn serve() -> (SocketAddr, FrozenTime) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let to_itself = format!("http://127.0.0.1:{}/text", address.port());
    let by_name = format!("http://localhost:{}/text", address.port());
    let routes = Router::new()
        .route("/text", get(|| async { "text" }))
        .route("/missing", get(|| async { StatusCode::NOT_FOUND }))
        .route("/lost", get(|| async { StatusCode::FOUND }))
        .route("/relative", get(|| async { Redirect::temporary("text") }))
        .route("/to-number", get(move || async move { Redirect::temporary(&to_itself) }))
        .route("/to-name", get(move || async move { Redirect::temporary(&by_name) }))
        .route("/to-file", get(|| async { Redirect::temporary("file:///etc/passwd") }))
        .route("/loop", get(|| async { Redirect::temporary("/loop") }))
        .route(
            "/endless",
            get(|| async {
                let pieces = stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b'x'; 100]));
                Body::from_stream(pieces).into_response()
            }),
        );
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (address, FrozenTime::hold())
}

fn fetcher(allowed: Vec<PrivateTarget>) -> Fetcher {
    Fetcher::new(AllowedAddresses::from(allowed), herm_outbound::tls_client_config().unwrap()).unwrap()
}

fn loopback() -> PrivateTarget {
    PrivateTarget::Network("127.0.0.0/8".parse().unwrap())
}

async fn get_from(fetcher: &Fetcher, host: &str, server: SocketAddr, path: &str) -> Result<Vec<u8>, Error> {
    fetcher.get(&Url::parse(&format!("http://{host}:{}{path}", server.port())).unwrap(), LIMIT).await
}

#[tokio::test(start_paused = true)]
async fn a_private_address_is_rejected_in_every_spelling() {
    let (server, _frozen) = serve().await;
    let fetcher = fetcher(Vec::new());
    let spellings = [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "[::ffff:127.0.0.1]",
        "[::1]",
        "0.0.0.0",
        "localhost",
        "LOCALHOST",
        "10.0.0.1",
        "169.254.169.254",
    ];
    for host in spellings {
        let refused = get_from(&fetcher, host, server, "/text").await;
        assert!(matches!(refused, Err(Error::PrivateAddress { .. })), "{host}: {refused:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_allowed_private_address_is_reached() {
    let (server, _frozen) = serve().await;
    let by_network = fetcher(vec![loopback()]);
    assert_eq!(get_from(&by_network, "127.0.0.1", server, "/text").await.unwrap(), b"text");
    assert_eq!(get_from(&by_network, "127.0.0.1", server, "/relative").await.unwrap(), b"text");
    let by_name = fetcher(vec![PrivateTarget::Host("localhost".to_owned())]);
    assert_eq!(get_from(&by_name, "localhost", server, "/text").await.unwrap(), b"text");
    let as_number = get_from(&by_name, "127.0.0.1", server, "/text").await;
    assert!(matches!(as_number, Err(Error::PrivateAddress { .. })), "{as_number:?}");
}

/// The host name of the first URL is in the list of allowed targets. That URL redirects to an IP address that
/// is not in the list.
#[tokio::test(start_paused = true)]
async fn a_redirect_to_a_private_address_is_not_followed() {
    let (server, _frozen) = serve().await;
    let by_name = fetcher(vec![PrivateTarget::Host("localhost".to_owned())]);
    let refused = get_from(&by_name, "localhost", server, "/to-number").await;
    assert_eq!(refused, Err(Error::PrivateAddress { host: "127.0.0.1".to_owned() }));
    let by_number = fetcher(vec![PrivateTarget::Network("127.0.0.1/32".parse().unwrap())]);
    // The redirect leads to a host name that resolves to 127.0.0.1, which is allowed.
    assert_eq!(get_from(&by_number, "127.0.0.1", server, "/to-name").await.unwrap(), b"text");
}

#[tokio::test(start_paused = true)]
async fn a_redirect_loop_or_an_invalid_redirect_is_an_error() {
    let (server, _frozen) = serve().await;
    let fetcher = fetcher(vec![loopback()]);
    assert_eq!(get_from(&fetcher, "127.0.0.1", server, "/loop").await, Err(Error::TooManyRedirects));
    assert!(Error::TooManyRedirects.to_string().contains(&MAX_REDIRECTS.to_string()));
    assert_eq!(get_from(&fetcher, "127.0.0.1", server, "/lost").await, Err(Error::InvalidRedirect));
    assert_eq!(get_from(&fetcher, "127.0.0.1", server, "/to-file").await, Err(Error::UnsupportedUrl));
}

#[tokio::test(start_paused = true)]
async fn a_document_over_the_size_limit_is_rejected() {
    let (server, _frozen) = serve().await;
    let fetcher = fetcher(vec![loopback()]);
    let refused = get_from(&fetcher, "127.0.0.1", server, "/endless").await;
    assert_eq!(refused, Err(Error::TooLarge { limit_bytes: LIMIT }));
}

#[tokio::test(start_paused = true)]
async fn other_failures_are_reported_by_their_kind() {
    let (server, _frozen) = serve().await;
    let fetcher = fetcher(vec![loopback()]);
    assert_eq!(get_from(&fetcher, "127.0.0.1", server, "/missing").await, Err(Error::Status(404)));
    // Bind a socket, but do not listen on it. Its port stays reserved, and connections to it are refused.
    let reserved = TcpSocket::new_v4().unwrap();
    reserved.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let refusing = reserved.local_addr().unwrap();
    assert_eq!(get_from(&fetcher, "127.0.0.1", refusing, "/text").await, Err(Error::Unreachable));
    for address in ["ftp://127.0.0.1/x", "http://user:word@127.0.0.1/", "data:text/plain,x"] {
        assert_eq!(
            fetcher.get(&Url::parse(address).unwrap(), LIMIT).await,
            Err(Error::UnsupportedUrl),
            "{address}"
        );
    }
}

/// Simulates a server that reads the request and never responds. The clock is frozen until the whole request
/// has arrived.
#[tokio::test(start_paused = true)]
async fn a_server_that_sends_no_response_times_out() {
    let frozen = FrozenTime::hold();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let fetcher = fetcher(vec![loopback()]);
    let silent = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        drop(frozen);
        stream
    };
    let (fetched, _stream) = tokio::join!(get_from(&fetcher, "127.0.0.1", address, "/text"), silent);
    assert_eq!(fetched, Err(Error::Timeout));
}
