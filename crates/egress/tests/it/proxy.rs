use herm_egress::MAX_CONNECTIONS;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::peer::{Peer, echo};
use crate::world::World;

#[tokio::test(start_paused = true)]
async fn an_invalid_proxy_request_gets_a_usage_hint() {
    let world = World::new();
    for (request, hint) in [
        ("GET / HTTP/1.1\r\nHost: 127.0.0.1:3128\r\nConnection: close\r\n\r\n", "this is a proxy"),
        ("OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "this is a proxy"),
        ("GET https://api.test/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "use CONNECT"),
        ("GET ftp://api.test/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "only http and https"),
        (
            "GET http://user:pw@api.test/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            "without a user name",
        ),
        ("CONNECT api.test HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "for example example.com:443"),
        ("CONNECT api.test:0 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "from 1 to 65535"),
    ] {
        let answer = world.send_raw(request).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{request}: {answer}");
        assert!(answer.contains(hint), "{request}: {answer}");
    }
    assert!(world.owner.attempts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn connections_that_do_not_send_http_are_closed() {
    let world = World::new();
    for bytes in [
        &b"\x05\x01\x00"[..],
        b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00",
        b"\x16\x03\x01\x00\x05hello",
        &[0; 64],
    ] {
        let answer = world.send_raw(bytes).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    let long = format!("GET http://api.test/ HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(70_000));
    let mut stream = world.connect();
    // The write may fail, because the proxy may close the connection before it has read the whole request.
    let _ = stream.write_all(long.as_bytes()).await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert!(world.owner.attempts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_user_name_is_recorded_and_not_forwarded() {
    let world = World::new();
    let peer = Peer::start("127.0.0.1", None, echo).await;
    let address = format!("http://api.test:{}/", peer.port());
    let mut client = world.plain().await;
    // The base64 of the credentials `run_01:x` and `run_02:x`.
    for credentials in ["Basic cnVuXzAxOng=", "basic cnVuXzAyOng="] {
        let (status, text) = client.get(&address, &[("proxy-authorization", credentials)]).await;
        assert_eq!(status, 200);
        assert!(!text.contains("proxy-authorization") && !text.contains("cnVu"), "{text}");
    }
    for credentials in ["Bearer x", "Basic !", "Basic Og==", "Basic CTp4"] {
        client.get(&address, &[("proxy-authorization", credentials)]).await;
    }
    let users: Vec<_> = world.owner.attempts.lock().unwrap().iter().map(|one| one.user.clone()).collect();
    assert_eq!(users, [Some("run_01".to_owned()), Some("run_02".to_owned()), None]);
}

#[tokio::test(start_paused = true)]
async fn hop_by_hop_fields_are_removed_and_the_host_field_is_set() {
    let world = World::new();
    let peer = Peer::start("127.0.0.1", None, echo).await;
    let request = format!(
        "GET http://api.test:{}/a?b=c HTTP/1.1\r\nHost: elsewhere.test\r\nProxy-Connection: keep-alive\r\n\
         Connection: close, X-Mine\r\nX-Mine: 1\r\nTE: gzip\r\nX-Kept: 1\r\n\r\n",
        peer.port()
    );
    let answer = world.send_raw(request).await;
    assert!(answer.contains(&format!("GET /a?b=c\nhost: api.test:{}\nx-kept: 1\n", peer.port())), "{answer}");
    for removed in ["elsewhere", "proxy-connection", "x-mine", "\nte:", "forwarded", "via"] {
        assert!(!answer.contains(removed), "{removed}: {answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_with_expect_continue_is_forwarded() {
    let world = World::new();
    let peer = Peer::start("127.0.0.1", None, echo).await;
    let mut stream = world.connect();
    let head = format!(
        "POST http://api.test:{}/ HTTP/1.1\r\nHost: api.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\
         Connection: close\r\n\r\n",
        peer.port()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("content-length: 5\n\nhello"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn requests_with_ambiguous_length_are_never_forwarded() {
    let world = World::new();
    let peer = Peer::start("127.0.0.1", None, echo).await;
    let at = format!("http://api.test:{}/", peer.port());
    for fields in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Content-Length: +5\r\n",
    ] {
        let answer = world.send_raw(format!("POST {at} HTTP/1.1\r\nHost: x\r\n{fields}\r\n0\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{fields}: {answer}");
    }
    let both = "Content-Length: 60\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n";
    let answer =
        world.send_raw(format!("POST {at} HTTP/1.1\r\nHost: x\r\n{both}\r\n3\r\nabc\r\n0\r\n\r\n")).await;
    assert!(!answer.contains("content-length: 60"), "{answer}");
    assert!(
        answer.starts_with("HTTP/1.1 400") || answer.ends_with("transfer-encoding: chunked\n\nabc"),
        "{answer}"
    );
}

#[tokio::test(start_paused = true)]
async fn connections_beyond_the_limit_of_a_sandbox_are_refused() {
    let world = World::new();
    let mut streams: Vec<_> = (0..MAX_CONNECTIONS).map(|_| world.connect()).collect();
    // Once the response begins, the proxy has counted the connection towards the limit.
    for stream in &mut streams {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        stream.read_u8().await.unwrap();
    }
    assert!(
        world
            .send_raw("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 503 Too many connections")
    );
    let mut last = streams.pop().unwrap();
    last.shutdown().await.unwrap();
    last.read_to_end(&mut Vec::new()).await.unwrap();
    // A new connection is accepted as soon as the proxy has noticed that one of the others was closed.
    while !world
        .send_raw("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .starts_with("HTTP/1.1 400")
    {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_host_is_reported_with_its_cause() {
    let world = World::new();
    let closed = Peer::raw("127.0.0.1", |_| async {}).await.port();
    // This socket is bound to a port but does not listen, so connections to the port are refused.
    let reserved = tokio::net::TcpSocket::new_v4().unwrap();
    reserved.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let refusing = reserved.local_addr().unwrap().port();
    for (at, message) in [
        ("nowhere.test:80".to_owned(), "nowhere.test could not be resolved"),
        (format!("api.test:{refusing}"), "failed to connect to api.test"),
    ] {
        let refused = world.tunnel(&at).await.unwrap_err();
        assert!(refused.starts_with("HTTP/1.1 502") && refused.contains(message), "{refused}");
        let (status, text) = world.plain().await.get(&format!("http://{at}/"), &[]).await;
        assert!(status == 502 && text.contains(message), "{status} {text}");
    }
    let (status, text) = world.plain().await.get(&format!("http://api.test:{closed}/"), &[]).await;
    assert!(status == 502 && text.contains(" failed: "), "{status} {text}");
    let ended = world.owner.ended(5).await;
    assert!(ended.iter().all(|(_, traffic)| traffic.error.is_some()), "{ended:?}");
    assert_eq!(world.owner.attempts()[0].0, "nowhere.test:80", "the DNS lookup is recorded");
}
