//! HTTP/1.1 by hand: a client library would not send what is sent here.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::request::Request;

#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Response {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(given, _)| given.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// Sends a request over a connection of its own, and waits for the answer however long it takes; `None` if the server closed it without an answer.
pub(super) async fn send(base_url: &str, request: &Request) -> Option<Response> {
    let address = base_url.trim_start_matches("http://");
    let mut connection = TcpStream::connect(address).await.expect("the server takes no connections");
    let (mut reader, mut writer) = connection.split();
    let bytes = request.bytes();
    let writing = async {
        // A server that has answered already may have stopped to read.
        let _ = writer.write_all(&bytes).await;
        if request.is_broken {
            // The server may wait for more of it.
            let _ = writer.shutdown().await;
        }
    };
    let exchange = async { tokio::join!(writing, read(&mut reader)).1 };
    exchange.await
}

async fn read(reader: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<Response> {
    let mut received = Vec::new();
    loop {
        if let Some(response) = parse(&received) {
            // An answer to the announcement of a body, or a stream that has no end: no more of it is wanted.
            let is_stream = response.header("content-type") == Some("text/event-stream");
            let length = response.header("content-length").and_then(|length| length.parse::<usize>().ok());
            if is_stream || length.is_some_and(|length| response.body.len() >= length) {
                return Some(response);
            }
        }
        // One that is reset has said what it had to say.
        if reader.read_buf(&mut received).await.unwrap_or(0) == 0 {
            return parse(&received);
        }
    }
}

/// The response that begins here, once its head is whole.
fn parse(received: &[u8]) -> Option<Response> {
    const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
    let received = received.strip_prefix(CONTINUE).unwrap_or(received);
    let end = received.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&received[..end]).expect("a head that is no text");
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().expect("a status that is no number");
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    Some(Response { status, headers, body: received[end + 4..].to_vec() })
}
