use std::io::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures_util::StreamExt as _;
use herm_types::secret::Inject;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::peer::{Peer, echo, text};
use crate::world::{Client, World};

const VALUE: &str = "sk-live/0123456789+\"é";

/// Starts a TLS host that answers requests with `handler`. Returns its URI, a client for HTTP/1.1 and one for HTTP/2,
/// and the host.
async fn clients_of_host<H, F>(world: &World, handler: H) -> (String, Vec<Client>, Peer)
where
    H: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<crate::peer::ReplyBody>> + Send + 'static,
{
    let tls = world.hosts.tls(&["api.test"], &["h2", "http/1.1"]);
    let peer = Peer::start("127.0.0.1", Some(tls), handler).await;
    let at = format!("api.test:{}", peer.port());
    world.owner.set_secret("key", VALUE, &["api.test"], &[Inject::Header]);
    let clients = vec![world.intercepted(&at, &["http/1.1"]).await, world.intercepted(&at, &["h2"]).await];
    (format!("https://{at}/"), clients, peer)
}

fn placeholder() -> &'static str {
    "herm_secret_key_00112233445566778899aabbccddeeff"
}

fn percent(value: &str) -> String {
    value.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn hex(value: &str) -> String {
    value.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns a body that contains the secret value in each supported encoding.
fn body_with_all_encodings() -> String {
    format!(
        "{VALUE} {} {} {} {} {} {}",
        percent(VALUE),
        hex(VALUE),
        STANDARD.encode(VALUE),
        STANDARD.encode(format!("u:{VALUE}")),
        URL_SAFE_NO_PAD.encode(format!("x{VALUE}")),
        VALUE.replace('/', "\\/").replace('"', "\\\""),
    )
}

fn assert_masked(seen: &str) {
    let end_of_base64 = &STANDARD.encode(VALUE)[4..20];
    for trace in [VALUE, "0123456789", &percent(VALUE), &hex(VALUE), end_of_base64] {
        assert!(!seen.contains(trace), "{trace} is in {seen}");
    }
    assert!(seen.contains(placeholder()), "{seen}");
}

#[tokio::test(start_paused = true)]
async fn echoed_values_are_masked_in_headers_bodies_and_trailers() {
    let world = World::new();
    let (address, clients, _peer) = clients_of_host(&world, |request: Request<Incoming>| async move {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-trailer", format!("end {VALUE}").parse().unwrap());
        let frames = [Ok(Frame::data(Bytes::from(body_with_all_encodings()))), Ok(Frame::trailers(trailers))];
        let status: u16 = request.uri().path().trim_start_matches('/').parse().unwrap();
        Response::builder()
            .status(status)
            .header("location", format!("https://elsewhere.test/?k={}", percent(VALUE)))
            .header("x-echo", request.headers()["x-key"].clone())
            .header("trailer", "x-trailer")
            .header("content-digest", "sha-256=:x:")
            .body(BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames))))
            .unwrap()
    })
    .await;
    for mut client in clients {
        for status in [200, 302, 401, 500] {
            let fields = [("x-key", placeholder()), ("te", "trailers"), ("connection", "te")];
            let fields = if matches!(client, Client::Http2(_)) { &fields[..2] } else { &fields[..] };
            let request = client.request(&format!("{address}{status}"), fields, "");
            let response = client.send(request).await;
            assert_eq!(response.status(), status);
            let headers = format!("{:?}", response.headers());
            assert_masked(&headers);
            assert!(!response.headers().contains_key("content-digest"));
            let body = response.into_body().collect().await.unwrap();
            assert_eq!(body.trailers().unwrap()["x-trailer"], format!("end {}", placeholder()).as_str());
            assert_masked(str::from_utf8(&body.to_bytes()).unwrap());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn uncompressed_complete_responses_are_requested_and_compressed_ones_are_decoded() {
    let world = World::new();
    let (sender, mut requests) = mpsc::unbounded_channel();
    let (address, clients, _peer) = clients_of_host(&world, move |request: Request<Incoming>| {
        sender.send(request.headers().clone()).unwrap();
        async move {
            let encoding = request.uri().path().trim_start_matches('/').to_owned();
            let mut packed = Vec::new();
            let body = body_with_all_encodings().repeat(100);
            match encoding.as_str() {
                "gzip" => flate2::write::GzEncoder::new(&mut packed, flate2::Compression::best())
                    .write_all(body.as_bytes())
                    .unwrap(),
                "br" => brotli::CompressorWriter::new(&mut packed, 4096, 5, 20)
                    .write_all(body.as_bytes())
                    .unwrap(),
                "zstd" => packed = zstd::encode_all(body.as_bytes(), 3).unwrap(),
                "deflate" => flate2::write::ZlibEncoder::new(&mut packed, flate2::Compression::best())
                    .write_all(body.as_bytes())
                    .unwrap(),
                _ => packed.extend(body.as_bytes()),
            }
            Response::builder().header("content-encoding", encoding).body(text(packed)).unwrap()
        }
    })
    .await;
    for mut client in clients {
        for encoding in ["gzip", "br", "zstd", "deflate", "identity"] {
            let fields = [("accept-encoding", "gzip, br"), ("range", "bytes=0-9"), ("if-range", "\"x\"")];
            let request = client.request(&format!("{address}{encoding}"), &fields, "");
            let response = client.send(request).await;
            assert!(!response.headers().contains_key("content-encoding"), "{encoding}");
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_masked(str::from_utf8(&body).unwrap());
            let received = requests.recv().await.unwrap();
            assert_eq!(received["accept-encoding"], "identity");
            assert!(!received.contains_key("range") && !received.contains_key("if-range"));
        }
        for encoding in ["compress", "gzip,br"] {
            let (status, text) = client.get(&format!("{address}{encoding}"), &[]).await;
            assert!(status == 502 && text.contains("cannot be masked"), "{status} {text}");
        }
        let request = client.request(&format!("{address}gzip"), &[], "");
        let (mut head, body) = request.into_parts();
        head.method = Method::HEAD;
        let response = client.send(Request::from_parts(head, body)).await;
        assert_eq!(
            response.headers()["content-encoding"],
            "gzip",
            "the response to HEAD has no body to decode"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn events_are_streamed_without_delay_and_split_values_are_masked() {
    let world = World::new();
    let streams = Arc::new(std::sync::Mutex::new(Vec::new()));
    let host_streams = streams.clone();
    let (address, clients, _peer) = clients_of_host(&world, move |_| {
        let (event_tx, event_rx) = mpsc::unbounded_channel::<Bytes>();
        host_streams.lock().unwrap().push(event_tx);
        async move {
            let frames = UnboundedReceiverStream::new(event_rx).map(|bytes| Ok(Frame::data(bytes)));
            Response::builder()
                .header("content-type", "text/event-stream")
                .body(BodyExt::boxed(StreamBody::new(frames)))
                .unwrap()
        }
    })
    .await;
    for mut client in clients {
        let request = client.request(&address, &[], "");
        let mut body = client.send(request).await.into_body();
        let event_tx = streams.lock().unwrap().pop().unwrap();
        for number in 0..3 {
            let event = format!("data: {number}\n\n");
            event_tx.send(event.clone().into()).unwrap();
            // The event is received completely before the next one is sent, which shows that the proxy does not hold
            // events back.
            let mut received = String::new();
            while received.len() < event.len() {
                let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
                received.push_str(str::from_utf8(&frame).unwrap());
            }
            assert_eq!(received, event);
        }
        let (left, right) = VALUE.split_at(9);
        event_tx.send(format!("data: {left}").into()).unwrap();
        event_tx.send(format!("{right}\n\n").into()).unwrap();
        drop(event_tx);
        let rest = body.collect().await.unwrap().to_bytes();
        assert_eq!(rest, format!("data: {}\n\n", placeholder()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_removed_value_is_masked_while_its_connection_lives() {
    let world = World::new();
    let (address, clients, _peer) =
        clients_of_host(&world, |_| async { Response::new(text(body_with_all_encodings())) }).await;
    for mut client in clients {
        world.owner.set_secret("key", VALUE, &["api.test"], &[Inject::Header]);
        client.get(&address, &[("x-key", placeholder())]).await;
        world.owner.set_secret("key", "another-value", &["api.test"], &[Inject::Header]);
        assert_masked(&client.get(&address, &[]).await.1);
        world.owner.remove_secrets();
        assert_masked(&client.get(&address, &[]).await.1);
    }
}

#[tokio::test(start_paused = true)]
async fn responses_without_tls_are_masked() {
    let world = World::new();
    let peer = Peer::start("127.0.0.1", None, echo).await;
    world.owner.set_secret("key", VALUE, &["api.test"], &[Inject::Query]);
    let address = format!("http://api.test:{}/", peer.port());
    let (_, seen) = world.plain().await.get(&address, &[("x-key", "sk-live/0123456789+\"é")]).await;
    assert_masked(&seen);
}
