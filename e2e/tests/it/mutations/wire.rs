//! A minimal HTTP/1.1 client. It can send invalid requests, which HTTP libraries refuse to send.

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
            .find(|(existing, _)| existing.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// Sends a request over a new connection and waits for the response, without a time limit. Returns `None` if the server
/// closes the connection without a response.
pub(super) async fn send(base_url: &str, request: &Request) -> Option<Response> {
    let address = base_url.trim_start_matches("http://");
    let mut connection = TcpStream::connect(address).await.expect("failed to connect to the server");
    let (mut reader, mut writer) = connection.split();
    let bytes = request.bytes();
    let writing = async {
        // Writing may fail: the server may respond and close the connection before it has read the whole request.
        let _ = writer.write_all(&bytes).await;
        if request.is_invalid_http {
            // Signals the end of the request. The server might otherwise wait for more bytes of an incomplete request.
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
            // Returns the response once its body is complete. An event stream never completes, so its headers are
            // enough.
            let is_stream = response.header("content-type") == Some("text/event-stream");
            let length = response.header("content-length").and_then(|length| length.parse::<usize>().ok());
            if is_stream || length.is_some_and(|length| response.body.len() >= length) {
                return Some(response);
            }
        }
        // A connection reset counts as the end of the response.
        if reader.read_buf(&mut received).await.unwrap_or(0) == 0 {
            return parse(&received);
        }
    }
}

/// Parses a response, with the part of the body that has been received. Returns `None` until the headers are complete.
fn parse(received: &[u8]) -> Option<Response> {
    const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
    let received = received.strip_prefix(CONTINUE).unwrap_or(received);
    let end = received.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&received[..end]).expect("the head of the response is not UTF-8");
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().expect("the status is not a number");
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    Some(Response { status, headers, body: received[end + 4..].to_vec() })
}
