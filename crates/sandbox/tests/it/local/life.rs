use std::path::Path;
use std::time::Duration;

use herm_sandbox::local::Exit;
use herm_testkit::process::{kill_children, processes_that_mention, wait_until};

use super::{Host, run, said, shell, text};

#[tokio::test]
async fn the_workspace_outlives_the_sandbox_and_tmp_does_not() {
    let host = Host::new();
    let sandbox = host.sandbox("one").await;
    said(&sandbox, "echo kept > file; echo gone > /tmp/file").await;
    host.sandboxes.stop("one").await.unwrap();
    let sandbox = host.sandbox("one").await;
    assert_eq!(said(&sandbox, "cat file; ls -A /tmp").await, "kept\n");
    host.stop().await;
}

#[tokio::test]
async fn who_asks_at_the_same_time_shares_one_sandbox() {
    let host = Host::new();
    let all = futures_util::future::join_all((0..8).map(|_| host.sandbox("one"))).await;
    let dir = host.dir.path().join("sandboxes/one");
    assert_eq!(processes_that_mention(&dir).len(), 1);
    for sandbox in all {
        assert_eq!(said(&sandbox, "echo here").await, "here\n");
    }
    host.stop().await;
}

#[tokio::test]
async fn stopping_ends_everything_inside_and_leaves_nothing_behind() {
    let host = Host::new();
    let sandbox = host.sandbox("one").await;
    said(
        &sandbox,
        "for n in 1 2 3; do setsid sh -c 'trap \"\" TERM HUP; exec sleep 45678' >/dev/null 2>&1 & done",
    )
    .await;
    let dir = host.dir.path().join("sandboxes/one");
    wait_until(|| processes_that_mention(Path::new("sleep\x0045678")).len() == 3).await;
    host.sandboxes.stop("one").await.unwrap();
    assert_eq!(processes_that_mention(Path::new("45678")), [0u32; 0]);
    assert_eq!(processes_that_mention(&dir), [0u32; 0]);
    assert!(!dir.exists());
    // Once more is as good.
    host.sandboxes.stop("one").await.unwrap();
}

#[tokio::test]
async fn a_sandbox_whose_guest_was_killed_is_started_anew() {
    let host = Host::new();
    let sandbox = host.sandbox("one").await;
    let dir = host.dir.path().join("sandboxes/one");
    let command = tokio::spawn(async move { sandbox.exec(shell("cut", "touch begun; sleep 1000")).await });
    wait_until(|| host.workspace("one").join("begun").exists()).await;
    processes_that_mention(&dir).into_iter().for_each(kill_children);
    let cut = command.await.unwrap();
    assert!(matches!(cut, Err(herm_sandbox::local::Error::Died)), "{cut:?}");
    let sandbox = host.sandbox("one").await;
    assert_eq!(said(&sandbox, "ls").await, "begun\n");
    host.stop().await;
}

#[tokio::test]
async fn a_server_that_comes_back_finds_the_sandbox_and_the_result_of_what_ran_on() {
    let host = Host::new();
    let sandbox = host.sandbox("one").await;
    let command = "echo made >> log; until test -e go; do sleep 0.01; done; cat log";
    let waiting = tokio::spawn(async move { sandbox.exec(shell("ran-on", command)).await });
    wait_until(|| host.workspace("one").join("log").exists()).await;
    // With the task its handle goes: nothing holds the guest then.
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    let host = host.restarted();
    std::fs::write(host.workspace("one").join("go"), "").unwrap();
    let sandbox = host.sandboxes.find("one").await.unwrap().expect("the sandbox is found again");
    let outcome = sandbox.attach("ran-on").await.unwrap().expect("the guest knows it");
    assert_eq!((outcome.exit, text(&outcome.stdout)), (Exit::Code(0), "made\n".to_owned()));
    host.stop().await;
}

#[tokio::test]
async fn a_guest_whose_server_stays_away_ends_itself() {
    let host = Host::with_away_limit(Duration::from_millis(300));
    let sandbox = host.sandbox("one").await;
    said(&sandbox, "setsid sleep 34567 >/dev/null 2>&1 &").await;
    let dir = host.dir.path().join("sandboxes/one");
    drop(sandbox);
    let Host { dir: kept, sandboxes } = host;
    drop(sandboxes);
    wait_until(|| processes_that_mention(&dir).is_empty()).await;
    assert_eq!(processes_that_mention(Path::new("34567")), [0u32; 0]);
    drop(kept);
}

#[tokio::test]
async fn sandboxes_come_and_go_without_leaving_anything() {
    let host = Host::new();
    for round in 0..crate::rounds(10) {
        let sandbox = host.sandbox("one").await;
        assert_eq!(run(&sandbox, &format!("echo {round}")).await.exit, Exit::Code(0));
        host.sandboxes.stop("one").await.unwrap();
    }
    assert_eq!(processes_that_mention(host.dir.path()), [0u32; 0]);
    let left: Vec<_> = std::fs::read_dir(host.dir.path().join("sandboxes")).unwrap().collect();
    assert_eq!(left.len(), 1, "only what all share is left: {left:?}");
}
