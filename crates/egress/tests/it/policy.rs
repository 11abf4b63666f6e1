use std::sync::atomic::Ordering;

use herm_types::sandbox::EgressMode;
use herm_types::secret::Inject;

use crate::peer::{Peer, echo};
use crate::world::World;

#[tokio::test(start_paused = true)]
async fn in_deny_mode_every_attempt_is_refused_and_recorded() {
    let world = World::new();
    let peer = Peer::start("127.0.0.1", None, echo).await;
    world.owner.set_mode(EgressMode::Deny, &[]);
    let at = format!("api.test:{}", peer.port());
    let refused = world.tunnel(&at).await.unwrap_err();
    assert!(refused.starts_with("HTTP/1.1 403 refused: this sandbox has no network access"), "{refused}");
    let (status, text) = world.plain().await.get(&format!("http://{at}/"), &[]).await;
    assert_eq!(status, 403);
    assert!(text.starts_with("herm: refused: this sandbox has no network access"), "{text}");
    assert_eq!(
        world.owner.attempts().iter().filter(|(host, reason)| *host == at && reason.is_some()).count(),
        2
    );
    assert_eq!(peer.connections(), 0);
    assert!(world.names.queries.lock().unwrap().is_empty(), "its name is not resolved");
}

#[tokio::test(start_paused = true)]
async fn in_allowlist_mode_only_listed_hosts_are_reached() {
    let world = World::new();
    let peer = Peer::start("127.0.0.1", None, echo).await;
    world.owner.set_mode(EgressMode::Allowlist, &["api.test", "*.wild.test"]);
    world.names.set("a.wild.test", &[&["127.0.0.1"]]);
    for (host, is_reached) in [
        ("api.test", true),
        ("API.Test.", true),
        ("a.wild.test", true),
        ("wild.test", false),
        ("other.test", false),
        ("127.0.0.1", false),
    ] {
        let at = format!("{host}:{}", peer.port());
        assert_eq!(world.tunnel(&at).await.is_ok(), is_reached, "{host}");
        let (status, text) = world.plain().await.get(&format!("http://{at}/"), &[]).await;
        assert_eq!(status, if is_reached { 200 } else { 403 }, "{host}: {text}");
    }
    assert!(world.owner.denials().iter().all(|reason| reason.contains("is not on the allowlist")));
}

#[tokio::test(start_paused = true)]
async fn private_addresses_are_refused_in_every_spelling() {
    let world = World::allowing(&[]);
    let peer = Peer::start("127.0.0.1", None, echo).await;
    for (name, address) in [
        ("loopback.test", "127.0.0.1"),
        ("mapped.test", "::ffff:127.0.0.1"),
        ("metadata.test", "169.254.169.254"),
        ("translated.test", "64:ff9b::7f00:1"),
        ("local6.test", "fd00::1"),
    ] {
        world.names.set(name, &[&[address]]);
    }
    let written = [
        "127.0.0.1",
        "127.0.0.1.",
        "2130706433",
        "0x7f.1",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "0.0.0.0",
        "10.0.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
        "[fd00::1]",
        "[fe80::1]",
        "loopback.test",
        "LOOPBACK.test.",
        "mapped.test",
        "metadata.test",
        "translated.test",
        "local6.test",
    ];
    for host in written {
        let at = format!("{host}:{}", peer.port());
        let refused = world.tunnel(&at).await.unwrap_err();
        assert!(refused.starts_with("HTTP/1.1 403"), "{host}: {refused}");
        let request =
            format!("GET http://{at}/ HTTP/1.1\r\nHost: public.example\r\nConnection: close\r\n\r\n");
        let refused = world.send_raw(request).await;
        assert!(refused.starts_with("HTTP/1.1 403"), "{host}: {refused}");
        assert!(refused.contains("has a private address"), "{host}: {refused}");
    }
    assert_eq!(world.owner.denials().len(), 2 * written.len());
    assert_eq!(peer.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn only_the_allowed_addresses_of_a_name_are_tried() {
    let world = World::allowing(&["127.0.0.2/32"]);
    let allowed = Peer::raw("127.0.0.2", |_| async {}).await;
    world.names.set("mixed.test", &[&["10.0.0.1", "127.0.0.1", "127.0.0.2"]]);
    world.tunnel(&format!("mixed.test:{}", allowed.port())).await.unwrap();
}

/// On machines without IPv6 this test fails. It is not skipped, so that IPv6 is never left untested.
#[tokio::test(start_paused = true)]
async fn an_ipv6_peer_is_reached_only_if_the_operator_allows_it() {
    if let Err(error) = tokio::net::TcpListener::bind("[::1]:0").await {
        panic!(
            "this test needs IPv6 on loopback, but binding ::1 failed ({error}); set net.ipv6.conf.lo.disable_ipv6=0"
        );
    }
    let peer = Peer::start("::1", None, echo).await;
    let (literal, name) = (format!("[::1]:{}", peer.port()), format!("six.test:{}", peer.port()));
    let world = World::allowing(&["::1/128"]);
    world.names.set("six.test", &[&["::1"]]);
    let mut client = world.plain().await;
    for at in [&literal, &name] {
        let (status, body) = client.get(&format!("http://{at}/seen"), &[]).await;
        assert!(status == 200 && body.contains("/seen"), "{at}: {status} {body}");
        world.tunnel(at).await.unwrap();
    }
    assert!(
        world.tunnel("127.0.0.1:1").await.unwrap_err().starts_with("HTTP/1.1 403"),
        "allowing ::1 does not allow 127.0.0.1"
    );
    let reached = peer.connections();
    // Allowing 127.0.0.1 does not allow ::1.
    let world = World::allowing(&["127.0.0.1/32"]);
    world.names.set("six.test", &[&["::1"]]);
    for at in [&literal, &name] {
        let refused = world.tunnel(at).await.unwrap_err();
        assert!(refused.starts_with("HTTP/1.1 403"), "{at}: {refused}");
    }
    assert_eq!(peer.connections(), reached);
}

#[tokio::test(start_paused = true)]
async fn dns_rebinding_does_not_bypass_the_address_check() {
    let world = World::allowing(&["127.0.0.2/32"]);
    let allowed = Peer::start("127.0.0.2", None, echo).await;
    world.names.set("rebound.test", &[&["127.0.0.2"], &["127.0.0.1"]]);
    let at = format!("rebound.test:{}", allowed.port());
    world.tunnel(&at).await.unwrap();
    assert_eq!(
        *world.names.queries.lock().unwrap(),
        ["rebound.test"],
        "the name is resolved once, and the connection goes to that address"
    );
    let refused = world.tunnel(&at).await.unwrap_err();
    assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn an_intercepted_connection_goes_to_the_checked_address() {
    let world = World::allowing(&["127.0.0.2/32"]);
    let tls = world.hosts.tls(&["rebound.test"], &["http/1.1"]);
    let peer = Peer::start("127.0.0.2", Some(tls), echo).await;
    world.names.set("rebound.test", &[&["127.0.0.2"], &["127.0.0.1"]]);
    let at = format!("rebound.test:{}", peer.port());
    world.owner.set_secret("key", "a-real-value", &["rebound.test"], &[Inject::Header]);
    let mut client = world.intercepted(&at, &[]).await;
    assert_eq!(client.get(&format!("https://{at}/"), &[]).await.0, 200);
    assert_eq!(world.names.queries.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_policy_is_checked_for_each_request_of_a_connection() {
    let world = World::new();
    let peer = Peer::start("127.0.0.1", None, echo).await;
    let tls = world.hosts.tls(&["api.test"], &["h2", "http/1.1"]);
    let secure = Peer::start("127.0.0.1", Some(tls), echo).await;
    world.owner.set_secret("key", "a-real-value", &["api.test"], &[Inject::Header]);
    let secure_at = format!("api.test:{}", secure.port());
    let mut clients = [
        (world.plain().await, format!("http://api.test:{}/", peer.port())),
        (world.intercepted(&secure_at, &["http/1.1"]).await, format!("https://{secure_at}/")),
        (world.intercepted(&secure_at, &["h2"]).await, format!("https://{secure_at}/")),
    ];
    for (client, address) in &mut clients {
        assert_eq!(client.get(address, &[]).await.0, 200);
        assert_eq!(client.get(address, &[]).await.0, 200);
    }
    assert_eq!((peer.connections(), secure.connections()), (1, 2), "connections are reused");
    assert_eq!(world.owner.attempts().len(), 3, "each connection is recorded once");
    world.owner.set_mode(EgressMode::Deny, &[]);
    for (client, address) in &mut clients {
        assert_eq!(client.get(address, &[]).await.0, 403);
    }
    assert_eq!(world.owner.denials().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_before_the_attempt_is_recorded() {
    let world = World::new();
    let peer = Peer::start("127.0.0.1", None, echo).await;
    let at = format!("api.test:{}", peer.port());
    world.owner.is_unavailable.store(true, Ordering::SeqCst);
    for mode in [EgressMode::Open, EgressMode::Deny] {
        world.owner.set_mode(mode, &[]);
        let refused = world.tunnel(&at).await.unwrap_err();
        assert!(
            refused.starts_with("HTTP/1.1 503 the server cannot check the egress policy of this sandbox"),
            "{refused}"
        );
        assert_eq!(world.plain().await.get(&format!("http://{at}/"), &[]).await.0, 503);
    }
    assert_eq!(peer.connections(), 0);
    world.owner.is_unavailable.store(false, Ordering::SeqCst);
    world.owner.set_mode(EgressMode::Open, &[]);
    assert_eq!(world.plain().await.get(&format!("http://{at}/"), &[]).await.0, 200);
}
