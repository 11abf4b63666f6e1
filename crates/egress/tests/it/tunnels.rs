use herm_egress::IDLE_LIMIT;
use herm_types::secret::Inject;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::peer::{Peer, echo};
use crate::world::{Tls, World};

#[tokio::test(start_paused = true)]
async fn bytes_go_through_a_tunnel_untouched_and_are_counted() {
    let world = World::new();
    let peer = Peer::raw("127.0.0.1", |mut stream| async move {
        // Whoever speaks first is not asked what.
        stream.write_all(b"\x00hello\xff").await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        all.reverse();
        stream.write_all(&all).await.unwrap();
    })
    .await;
    let placeholder = world.owner.set_secret("key", "a-real-value", &["other.test"], &[Inject::Header]);
    let mut stream = world.tunnel(&format!("api.test:{}", peer.port())).await.unwrap();
    let mut first = [0; 7];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"\x00hello\xff");
    let sent = format!("GET / HTTP/1.1\r\nx: {placeholder}\r\n\r\n").repeat(1000);
    stream.write_all(sent.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).await.unwrap();
    back.reverse();
    assert_eq!(back, sent.as_bytes());
    let traffic = world.owner.ended(1).await[0].1.clone();
    assert_eq!((traffic.sent_bytes, traffic.received_bytes), (sent.len() as u64, sent.len() as u64 + 7));
    assert_eq!(traffic.error, None);
}

#[tokio::test(start_paused = true)]
async fn the_tls_of_a_host_without_a_secret_is_its_own() {
    let world = World::new();
    let tls = world.hosts.tls(&["api.test"], &["h2", "http/1.1"]);
    let peer = Peer::start("127.0.0.1", Some(tls), echo).await;
    world.owner.set_secret("key", "a-real-value", &["other.test", "api.test:1"], &[Inject::Header]);
    let authority = format!("api.test:{}", peer.port());
    let to = |is_opened| Tls { authority: &authority, name: "api.test", alpn: &["h2"], is_opened };
    world.tls(&to(false)).await.unwrap();
    assert!(world.tls(&to(true)).await.is_err(), "it does not stand on the server's authority");
    world.owner.set_secret("key", "a-real-value", &["api.test"], &[Inject::Header]);
    world.tls(&to(true)).await.unwrap();
    assert!(world.tls(&to(false)).await.is_err(), "now it does");
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_over_which_nothing_goes_is_closed() {
    let mut world = World::new();
    let peer = Peer::raw("127.0.0.1", |mut stream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let mut stream = world.tunnel(&format!("api.test:{}", peer.port())).await.unwrap();
    let before = tokio::time::Instant::now();
    world.let_time_go();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    assert!(before.elapsed() >= IDLE_LIMIT, "{:?}", before.elapsed());
    assert_eq!(world.owner.ended(1).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_program_that_goes_away_ends_the_connection_to_the_host() {
    let world = World::new();
    let peer = Peer::raw("127.0.0.1", |mut stream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let stream = world.tunnel(&format!("api.test:{}", peer.port())).await.unwrap();
    drop(stream);
    assert_eq!(world.owner.ended(1).await.len(), 1);
}
