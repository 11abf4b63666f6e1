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

/// A host that answers with this, and a client of it over each version of HTTP.
async fn answering<H, F>(world: &World, handler: H) -> (String, Vec<Client>, Peer)
where
    H: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<crate::peer::ReplyBody>> + Send + 'static,
{
    let tls = world.hosts.tls(&["api.test"], &["h2", "http/1.1"]);
    let peer = Peer::start("127.0.0.1", Some(tls), handler).await;
    let at = format!("api.test:{}", peer.port());
    world.owner.set_secret("key", VALUE, &["api.test"], &[Inject::Header]);
    let clients = vec![world.opened(&at, &["http/1.1"]).await, world.opened(&at, &["h2"]).await];
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

/// A reply that holds the value in each encoding.
fn told() -> String {
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
async fn what_a_host_echoes_is_masked_in_headers_bodies_and_trailers() {
    let world = World::new();
    let (address, clients, _peer) = answering(&world, |request: Request<Incoming>| async move {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-trailer", format!("end {VALUE}").parse().unwrap());
        let frames = [Ok(Frame::data(Bytes::from(told()))), Ok(Frame::trailers(trailers))];
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
async fn a_reply_is_asked_for_plain_and_whole_and_opened_if_it_comes_compressed() {
    let world = World::new();
    let (heard, mut hears) = mpsc::unbounded_channel();
    let (address, clients, _peer) = answering(&world, move |request: Request<Incoming>| {
        heard.send(request.headers().clone()).unwrap();
        async move {
            let encoding = request.uri().path().trim_start_matches('/').to_owned();
            let mut packed = Vec::new();
            let told = told().repeat(100);
            match encoding.as_str() {
                "gzip" => flate2::write::GzEncoder::new(&mut packed, flate2::Compression::best())
                    .write_all(told.as_bytes())
                    .unwrap(),
                "br" => brotli::CompressorWriter::new(&mut packed, 4096, 5, 20)
                    .write_all(told.as_bytes())
                    .unwrap(),
                "zstd" => packed = zstd::encode_all(told.as_bytes(), 3).unwrap(),
                "deflate" => flate2::write::ZlibEncoder::new(&mut packed, flate2::Compression::best())
                    .write_all(told.as_bytes())
                    .unwrap(),
                _ => packed.extend(told.as_bytes()),
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
            let heard = hears.recv().await.unwrap();
            assert_eq!(heard["accept-encoding"], "identity");
            assert!(!heard.contains_key("range") && !heard.contains_key("if-range"));
        }
        for encoding in ["compress", "gzip,br"] {
            let (status, text) = client.get(&format!("{address}{encoding}"), &[]).await;
            assert!(status == 502 && text.contains("could not be masked"), "{status} {text}");
        }
        let request = client.request(&format!("{address}gzip"), &[], "");
        let (mut head, body) = request.into_parts();
        head.method = Method::HEAD;
        let response = client.send(Request::from_parts(head, body)).await;
        assert_eq!(response.headers()["content-encoding"], "gzip", "of no body nothing is opened");
    }
}

#[tokio::test(start_paused = true)]
async fn events_flow_at_once_and_a_value_between_them_is_masked() {
    let world = World::new();
    let streams = Arc::new(std::sync::Mutex::new(Vec::new()));
    let given = streams.clone();
    let (address, clients, _peer) = answering(&world, move |_| {
        let (sends, receives) = mpsc::unbounded_channel::<Bytes>();
        given.lock().unwrap().push(sends);
        async move {
            let frames = UnboundedReceiverStream::new(receives).map(|bytes| Ok(Frame::data(bytes)));
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
        let sends = streams.lock().unwrap().pop().unwrap();
        for number in 0..3 {
            let event = format!("data: {number}\n\n");
            sends.send(event.clone().into()).unwrap();
            // The next one is not sent before this one has come.
            let mut came = String::new();
            while came.len() < event.len() {
                let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
                came.push_str(str::from_utf8(&frame).unwrap());
            }
            assert_eq!(came, event);
        }
        let (left, right) = VALUE.split_at(9);
        sends.send(format!("data: {left}").into()).unwrap();
        sends.send(format!("{right}\n\n").into()).unwrap();
        drop(sends);
        let rest = body.collect().await.unwrap().to_bytes();
        assert_eq!(rest, format!("data: {}\n\n", placeholder()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_that_was_taken_away_is_masked_as_long_as_its_connection_lives() {
    let world = World::new();
    let (address, clients, _peer) = answering(&world, |_| async { Response::new(text(told())) }).await;
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
async fn also_without_tls_what_a_host_answers_is_masked() {
    let world = World::new();
    let peer = Peer::start("127.0.0.1", None, echo).await;
    world.owner.set_secret("key", VALUE, &["api.test"], &[Inject::Query]);
    let address = format!("http://api.test:{}/", peer.port());
    let (_, seen) = world.plain().await.get(&address, &[("x-key", "sk-live/0123456789+\"é")]).await;
    assert_masked(&seen);
}
