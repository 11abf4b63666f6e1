use herm_egress::MAX_CONNECTIONS;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::peer::{Peer, echo};
use crate::world::World;

#[tokio::test(start_paused = true)]
async fn a_request_to_the_proxy_itself_is_told_how_a_proxy_is_asked() {
    let world = World::new();
    for (request, hint) in [
        ("GET / HTTP/1.1\r\nHost: 127.0.0.1:3128\r\nConnection: close\r\n\r\n", "this is a proxy"),
        ("OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "this is a proxy"),
        ("GET https://api.test/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "by CONNECT"),
        ("GET ftp://api.test/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "only http and https"),
        (
            "GET http://user:pw@api.test/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            "without a user name",
        ),
        ("CONNECT api.test HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "such as example.com:443"),
        ("CONNECT api.test:0 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "from 1 to 65535"),
    ] {
        let answer = world.say(request).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{request}: {answer}");
        assert!(answer.contains(hint), "{request}: {answer}");
    }
    assert!(world.owner.attempts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_no_http_is_closed() {
    let world = World::new();
    for bytes in [
        &b"\x05\x01\x00"[..],
        b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00",
        b"\x16\x03\x01\x00\x05hello",
        &[0; 64],
    ] {
        let answer = world.say(bytes).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    let long = format!("GET http://api.test/ HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(70_000));
    let mut stream = world.connect();
    // The proxy may end the connection before it has read all of this.
    let _ = stream.write_all(long.as_bytes()).await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert!(world.owner.attempts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_users_name_is_recorded_and_not_sent_on() {
    let world = World::new();
    let peer = Peer::start("127.0.0.1", None, echo).await;
    let address = format!("http://api.test:{}/", peer.port());
    let mut client = world.plain().await;
    // run_01:x, run_02:x
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
async fn a_host_gets_what_is_for_it_and_its_own_name() {
    let world = World::new();
    let peer = Peer::start("127.0.0.1", None, echo).await;
    let request = format!(
        "GET http://api.test:{}/a?b=c HTTP/1.1\r\nHost: elsewhere.test\r\nProxy-Connection: keep-alive\r\n\
         Connection: close, X-Mine\r\nX-Mine: 1\r\nTE: gzip\r\nX-Kept: 1\r\n\r\n",
        peer.port()
    );
    let answer = world.say(request).await;
    assert!(answer.contains(&format!("GET /a?b=c\nhost: api.test:{}\nx-kept: 1\n", peer.port())), "{answer}");
    for gone in ["elsewhere", "proxy-connection", "x-mine", "\nte:", "forwarded", "via"] {
        assert!(!answer.contains(gone), "{gone}: {answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_is_asked_for_and_sent_whole() {
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
async fn two_lengths_of_one_request_are_never_passed_on() {
    let world = World::new();
    let peer = Peer::start("127.0.0.1", None, echo).await;
    let at = format!("http://api.test:{}/", peer.port());
    for fields in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Content-Length: +5\r\n",
    ] {
        let answer = world.say(format!("POST {at} HTTP/1.1\r\nHost: x\r\n{fields}\r\n0\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{fields}: {answer}");
    }
    let both = "Content-Length: 60\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n";
    let answer = world.say(format!("POST {at} HTTP/1.1\r\nHost: x\r\n{both}\r\n3\r\nabc\r\n0\r\n\r\n")).await;
    assert!(!answer.contains("content-length: 60"), "{answer}");
    assert!(
        answer.starts_with("HTTP/1.1 400") || answer.ends_with("transfer-encoding: chunked\n\nabc"),
        "{answer}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_has_only_so_many_connections_at_a_time() {
    let world = World::new();
    let mut streams: Vec<_> = (0..MAX_CONNECTIONS).map(|_| world.connect()).collect();
    // Each has its place once it has answered.
    for stream in &mut streams {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        stream.read_u8().await.unwrap();
    }
    assert!(
        world.say("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.starts_with("HTTP/1.1 503 Too many connections")
    );
    let mut last = streams.pop().unwrap();
    last.shutdown().await.unwrap();
    last.read_to_end(&mut Vec::new()).await.unwrap();
    // Its place is free as soon as the proxy has seen that it is gone.
    while !world
        .say("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .starts_with("HTTP/1.1 400")
    {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_cannot_be_reached_is_told_in_a_sentence() {
    let world = World::new();
    let closed = Peer::raw("127.0.0.1", |_| async {}).await.port();
    // Bound, so that nobody else is given the port, and not listening.
    let deaf = tokio::net::TcpSocket::new_v4().unwrap();
    deaf.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let refusing = deaf.local_addr().unwrap().port();
    for (at, says) in [
        ("nowhere.test:80".to_owned(), "nowhere.test was not found"),
        (format!("api.test:{refusing}"), "could not be reached: Connection refused"),
    ] {
        let refused = world.tunnel(&at).await.unwrap_err();
        assert!(refused.starts_with("HTTP/1.1 502") && refused.contains(says), "{refused}");
        let (status, text) = world.plain().await.get(&format!("http://{at}/"), &[]).await;
        assert!(status == 502 && text.contains(says), "{status} {text}");
    }
    let (status, text) = world.plain().await.get(&format!("http://api.test:{closed}/"), &[]).await;
    assert!(status == 502 && text.contains("broke"), "{status} {text}");
    let ended = world.owner.ended(5).await;
    assert!(ended.iter().all(|(_, traffic)| traffic.error.is_some()), "{ended:?}");
    assert_eq!(world.owner.attempts()[0].0, "nowhere.test:80", "that a name was asked for is recorded");
}
