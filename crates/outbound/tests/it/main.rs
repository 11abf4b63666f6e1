//! Documents of a server on this machine, which is as private as an address can be.

#![cfg(test)]

use std::net::SocketAddr;
use std::sync::mpsc::{Sender, channel};

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect};
use axum::routing::get;
use futures_util::stream;
use herm_outbound::{Allowed, Error, Fetcher, MAX_REDIRECTS};
use herm_types::network::PrivateTarget;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpSocket};
use url::Url;

const LIMIT: usize = 1000;

/// Keeps a paused time from jumping to what is due next, until it is dropped: so no limit of a fetch ends one that a busy
/// machine serves slowly.
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

/// A server whose paths do what their names say, in a time that stands still; gives its address.
async fn serve() -> (SocketAddr, StandingTime) {
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
    (address, StandingTime::hold())
}

fn fetcher(allowed: Vec<PrivateTarget>) -> Fetcher {
    Fetcher::new(Allowed::from(allowed), herm_outbound::tls().unwrap()).unwrap()
}

fn loopback() -> PrivateTarget {
    PrivateTarget::Network("127.0.0.0/8".parse().unwrap())
}

async fn get_from(fetcher: &Fetcher, host: &str, server: SocketAddr, path: &str) -> Result<Vec<u8>, Error> {
    fetcher.get(&Url::parse(&format!("http://{host}:{}{path}", server.port())).unwrap(), LIMIT).await
}

#[tokio::test(start_paused = true)]
async fn a_private_address_is_refused_in_every_spelling() {
    let (server, _still) = serve().await;
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
        assert!(matches!(refused, Err(Error::Private { .. })), "{host}: {refused:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_operator_allows_is_reached() {
    let (server, _still) = serve().await;
    let by_network = fetcher(vec![loopback()]);
    assert_eq!(get_from(&by_network, "127.0.0.1", server, "/text").await.unwrap(), b"text");
    assert_eq!(get_from(&by_network, "127.0.0.1", server, "/relative").await.unwrap(), b"text");
    let by_name = fetcher(vec![PrivateTarget::Host("localhost".to_owned())]);
    assert_eq!(get_from(&by_name, "localhost", server, "/text").await.unwrap(), b"text");
    let as_number = get_from(&by_name, "127.0.0.1", server, "/text").await;
    assert!(matches!(as_number, Err(Error::Private { .. })), "{as_number:?}");
}

/// The first hop is allowed by its name; where it leads to is checked anew.
#[tokio::test(start_paused = true)]
async fn a_redirect_to_a_private_address_is_not_followed() {
    let (server, _still) = serve().await;
    let by_name = fetcher(vec![PrivateTarget::Host("localhost".to_owned())]);
    let refused = get_from(&by_name, "localhost", server, "/to-number").await;
    assert_eq!(refused, Err(Error::Private { host: "127.0.0.1".to_owned() }));
    let by_number = fetcher(vec![PrivateTarget::Network("127.0.0.1/32".parse().unwrap())]);
    // By name it is the same machine, which is allowed.
    assert_eq!(get_from(&by_number, "127.0.0.1", server, "/to-name").await.unwrap(), b"text");
}

#[tokio::test(start_paused = true)]
async fn redirects_lead_somewhere_and_end() {
    let (server, _still) = serve().await;
    let fetcher = fetcher(vec![loopback()]);
    assert_eq!(get_from(&fetcher, "127.0.0.1", server, "/loop").await, Err(Error::Redirects));
    assert!(Error::Redirects.to_string().contains(&MAX_REDIRECTS.to_string()));
    assert_eq!(get_from(&fetcher, "127.0.0.1", server, "/lost").await, Err(Error::LostRedirect));
    assert_eq!(get_from(&fetcher, "127.0.0.1", server, "/to-file").await, Err(Error::Address));
}

#[tokio::test(start_paused = true)]
async fn a_document_without_end_is_cut_at_the_limit() {
    let (server, _still) = serve().await;
    let fetcher = fetcher(vec![loopback()]);
    let refused = get_from(&fetcher, "127.0.0.1", server, "/endless").await;
    assert_eq!(refused, Err(Error::TooLarge { limit_bytes: LIMIT }));
}

#[tokio::test(start_paused = true)]
async fn other_failures_say_what_they_are_and_no_more() {
    let (server, _still) = serve().await;
    let fetcher = fetcher(vec![loopback()]);
    assert_eq!(get_from(&fetcher, "127.0.0.1", server, "/missing").await, Err(Error::Status(404)));
    // Bound, so that nobody else is given the port, and not listening.
    let deaf = TcpSocket::new_v4().unwrap();
    deaf.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let refusing = deaf.local_addr().unwrap();
    assert_eq!(get_from(&fetcher, "127.0.0.1", refusing, "/text").await, Err(Error::Unreachable));
    for address in ["ftp://127.0.0.1/x", "http://user:word@127.0.0.1/", "data:text/plain,x"] {
        assert_eq!(fetcher.get(&Url::parse(address).unwrap(), LIMIT).await, Err(Error::Address), "{address}");
    }
}

/// A server that takes a call and says nothing. Time passes only once it has the whole request.
#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_is_given_up() {
    let still = StandingTime::hold();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let fetcher = fetcher(vec![loopback()]);
    let silent = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        drop(still);
        stream
    };
    let (fetched, _stream) = tokio::join!(get_from(&fetcher, "127.0.0.1", address, "/text"), silent);
    assert_eq!(fetched, Err(Error::Slow));
}
