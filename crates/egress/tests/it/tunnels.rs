use herm_egress::IDLE_TIMEOUT;
use herm_types::secret::Inject;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::peer::{Peer, echo};
use crate::world::{Tls, World};

#[tokio::test(start_paused = true)]
async fn a_tunnel_passes_bytes_unchanged_and_counts_them() {
    let world = World::new();
    let peer = Peer::raw("127.0.0.1", |mut stream| async move {
        // The host sends first. The proxy must forward this data although the program has not sent anything yet.
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
async fn a_host_without_a_secret_is_not_intercepted() {
    let world = World::new();
    let tls = world.hosts.tls(&["api.test"], &["h2", "http/1.1"]);
    let peer = Peer::start("127.0.0.1", Some(tls), echo).await;
    world.owner.set_secret("key", "a-real-value", &["other.test", "api.test:1"], &[Inject::Header]);
    let authority = format!("api.test:{}", peer.port());
    let to = |is_intercepted| Tls { authority: &authority, name: "api.test", alpn: &["h2"], is_intercepted };
    world.tls(&to(false)).await.unwrap();
    assert!(world.tls(&to(true)).await.is_err(), "the host must not be intercepted");
    world.owner.set_secret("key", "a-real-value", &["api.test"], &[Inject::Header]);
    world.tls(&to(true)).await.unwrap();
    assert!(world.tls(&to(false)).await.is_err(), "the host must be intercepted");
}

#[tokio::test(start_paused = true)]
async fn an_idle_tunnel_is_closed() {
    let mut world = World::new();
    let peer = Peer::raw("127.0.0.1", |mut stream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let mut stream = world.tunnel(&format!("api.test:{}", peer.port())).await.unwrap();
    let before = tokio::time::Instant::now();
    world.unfreeze_time();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    assert!(before.elapsed() >= IDLE_TIMEOUT, "{:?}", before.elapsed());
    assert_eq!(world.owner.ended(1).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn closing_the_client_connection_closes_the_connection_to_the_host() {
    let world = World::new();
    let peer = Peer::raw("127.0.0.1", |mut stream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let stream = world.tunnel(&format!("api.test:{}", peer.port())).await.unwrap();
    drop(stream);
    assert_eq!(world.owner.ended(1).await.len(), 1);
}
