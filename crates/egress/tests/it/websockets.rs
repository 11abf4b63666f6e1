use futures_util::{SinkExt as _, StreamExt as _};
use herm_types::secret::Inject;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

use crate::peer::Peer;
use crate::world::{Tls, World};

const VALUE: &str = "sk-live-0123456789";

/// A WebSocket host. It sends the `x-key` header that it received, then echoes each message, and puts the secret
/// value before each text message.
async fn talk<S: AsyncRead + AsyncWrite + Unpin>(stream: S) {
    let mut key = String::new();
    #[expect(clippy::result_large_err, reason = "the signature is defined by the library")]
    let inspect = |request: &Request, response: Response| {
        assert!(!request.headers().contains_key("sec-websocket-extensions"));
        key = request.headers()["x-key"].to_str().unwrap().to_owned();
        Ok(response)
    };
    let mut socket = tokio_tungstenite::accept_hdr_async(stream, inspect).await.unwrap();
    socket.send(Message::text(format!("your key is {key}"))).await.unwrap();
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Text(text) => socket.send(Message::text(format!("{VALUE} {text}"))).await.unwrap(),
            Message::Binary(bytes) => socket.send(Message::Binary(bytes)).await.unwrap(),
            _ => {}
        }
    }
}

async fn check<S: AsyncRead + AsyncWrite + Unpin>(mut socket: WebSocketStream<S>, placeholder: &str) {
    let next = socket.next().await.unwrap().unwrap();
    assert_eq!(next, Message::text(format!("your key is {placeholder}")));
    // Messages from the program are not rewritten, so the host receives the placeholder.
    socket.send(Message::text(placeholder)).await.unwrap();
    let next = socket.next().await.unwrap().unwrap();
    assert_eq!(next, Message::text(format!("{placeholder} {placeholder}")));
    let large = vec![7; 300_000];
    socket.send(Message::binary(large.clone())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary(large));
    socket.close(None).await.unwrap();
    while socket.next().await.is_some() {}
}

fn request(address: &str, placeholder: &str) -> ClientRequestBuilder {
    ClientRequestBuilder::new(address.parse::<Uri>().unwrap())
        .with_header("x-key", placeholder)
        .with_header("sec-websocket-extensions", "permessage-deflate")
}

#[tokio::test(start_paused = true)]
async fn messages_on_an_intercepted_connection_are_masked() {
    let world = World::new();
    let acceptor =
        TlsAcceptor::from(std::sync::Arc::new(world.hosts.tls(&["api.test"], &["h2", "http/1.1"])));
    let peer = Peer::raw("127.0.0.1", move |stream| {
        let acceptor = acceptor.clone();
        async move { talk(acceptor.accept(stream).await.unwrap()).await }
    })
    .await;
    let placeholder = world.owner.set_secret("key", VALUE, &["api.test"], &[Inject::Header]);
    let authority = format!("api.test:{}", peer.port());
    for alpn in [&["http/1.1"][..], &[]] {
        let to = Tls { authority: &authority, name: "api.test", alpn, is_intercepted: true };
        let stream = world.tls(&to).await.unwrap();
        let request = request(&format!("wss://{authority}/"), &placeholder);
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        check(socket, &placeholder).await;
    }
    assert_eq!(world.owner.ended(2).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn messages_without_tls_are_masked_with_and_without_a_tunnel() {
    let world = World::new();
    let peer = Peer::raw("127.0.0.1", talk).await;
    let placeholder = world.owner.set_secret("key", VALUE, &["api.test"], &[Inject::Header]);
    let authority = format!("api.test:{}", peer.port());
    let stream = world.tunnel(&authority).await.unwrap();
    let asked = request(&format!("ws://{authority}/"), &placeholder);
    let (socket, _) = tokio_tungstenite::client_async(asked, stream).await.unwrap();
    check(socket, &placeholder).await;

    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(world.connect())).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let asked = http::Request::builder()
        .uri(format!("http://{authority}/"))
        .header("host", &authority)
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("x-key", &placeholder)
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .unwrap();
    let answer = sender.send_request(asked).await.unwrap();
    assert_eq!(answer.status(), 101);
    assert_eq!(answer.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let stream = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    let role = tokio_tungstenite::tungstenite::protocol::Role::Client;
    check(WebSocketStream::from_raw_socket(stream, role, None).await, &placeholder).await;
}

#[tokio::test(start_paused = true)]
async fn upgrades_to_other_protocols_are_not_forwarded() {
    let world = World::new();
    let peer = Peer::raw("127.0.0.1", |mut stream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        let is_asked = head.contains("upgrade");
        let answer = if is_asked || head.contains("/forced") {
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: own\r\n\r\nown"
        } else {
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
        };
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    for (path, status) in [("", "200"), ("forced", "502")] {
        let answer = world
            .send_raw(format!(
                "GET http://api.test:{}/{path} HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: own\r\n\r\n",
                peer.port()
            ))
            .await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
}
