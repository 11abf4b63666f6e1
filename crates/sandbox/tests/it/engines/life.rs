use std::time::Duration;

use herm_sandbox::{Error, Exit, Spec};
use herm_testkit::process::wait_until;
use herm_types::sandbox::SandboxType;

use super::{Host, LISTING, every_engine, no_way_out, run, said, shell, text};

every_engine![
    the_workspace_outlives_the_sandbox_and_tmp_does_not,
    who_asks_at_the_same_time_shares_one_sandbox,
    stopping_ends_everything_inside_and_leaves_nothing_behind,
    a_sandbox_whose_guest_was_killed_is_started_anew,
    a_server_that_comes_back_finds_the_sandbox_and_the_result_of_what_ran_on,
    a_guest_whose_server_stays_away_ends_itself,
    sandboxes_come_and_go_without_leaving_anything,
    what_an_earlier_server_left_of_a_sandbox_that_ended_is_cleared,
    an_image_that_is_not_there_is_fetched_or_said_to_be_missing,
];

async fn the_workspace_outlives_the_sandbox_and_tmp_does_not(host: Host) {
    let sandbox = host.sandbox("one").await;
    said(&sandbox, "echo kept > file; echo gone > /tmp/file").await;
    host.sandboxes.stop("one").await.unwrap();
    let sandbox = host.sandbox("one").await;
    assert_eq!(said(&sandbox, "cat file; cat /tmp/file 2>/dev/null || true").await, "kept\n");
    host.stop().await;
}

async fn who_asks_at_the_same_time_shares_one_sandbox(host: Host) {
    let all = futures_util::future::join_all((0..8).map(|_| host.sandbox("one"))).await;
    assert_eq!(host.alive(), 1);
    for sandbox in all {
        assert_eq!(said(&sandbox, "echo here").await, "here\n");
    }
    host.stop().await;
}

async fn stopping_ends_everything_inside_and_leaves_nothing_behind(host: Host) {
    let sandbox = host.sandbox("one").await;
    let stubborn = "for n in 1 2 3; do setsid sh -c 'trap \"\" TERM HUP; while :; do date +%N > beat; sleep 0.01; done' \
                    >/dev/null 2>&1 & done";
    said(&sandbox, stubborn).await;
    let beat = host.workspace("one").join("beat");
    wait_until(|| beat.exists()).await;
    host.sandboxes.stop("one").await.unwrap();
    assert_eq!(host.traces(), [""; 0]);
    std::fs::remove_file(&beat).unwrap();
    // Once more is as good.
    host.sandboxes.stop("one").await.unwrap();
    assert!(!beat.exists(), "something goes on");
}

async fn a_sandbox_whose_guest_was_killed_is_started_anew(host: Host) {
    let sandbox = host.sandbox("one").await;
    let command = tokio::spawn(async move { sandbox.exec(shell("cut", "touch begun; sleep 1000")).await });
    wait_until(|| host.workspace("one").join("begun").exists()).await;
    host.kill_all();
    let cut = command.await.unwrap();
    assert!(matches!(cut, Err(Error::Died)), "{cut:?}");
    let sandbox = host.sandbox("one").await;
    assert_eq!(said(&sandbox, LISTING).await, "begun\n");
    assert_eq!(host.alive(), 1);
    host.stop().await;
}

async fn a_server_that_comes_back_finds_the_sandbox_and_the_result_of_what_ran_on(host: Host) {
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

async fn a_guest_whose_server_stays_away_ends_itself(host: Host) {
    let host = Host::with(host.engine, Duration::from_millis(300), no_way_out());
    let sandbox = host.sandbox("one").await;
    said(&sandbox, "setsid sh -c 'while :; do date +%N > beat; sleep 0.01; done' >/dev/null 2>&1 &").await;
    assert_eq!(host.alive(), 1);
    drop(sandbox);
    let host = host.left();
    wait_until(|| host.alive() == 0).await;
}

async fn sandboxes_come_and_go_without_leaving_anything(host: Host) {
    for round in 0..crate::rounds(50) {
        let sandbox = host.sandbox("one").await;
        assert_eq!(run(&sandbox, &format!("echo {round}")).await.exit, Exit::Code(0));
        host.sandboxes.stop("one").await.unwrap();
    }
    assert_eq!(host.traces(), [""; 0]);
    let left: Vec<_> = std::fs::read_dir(host.dir.path().join("sandboxes")).unwrap().collect();
    assert_eq!(left.len(), 1, "only what all share is left: {left:?}");
}

/// No registry is reached here: the attempt is made, and its failure told.
async fn an_image_that_is_not_there_is_fetched_or_said_to_be_missing(host: Host) {
    let image = Some("127.0.0.9:1/herm-no-such-image:1".to_owned());
    let started = host.sandboxes.ensure(Spec { image, ..host.spec("one") }).await;
    match (host.engine, started.map(drop)) {
        // It has no images.
        (SandboxType::Local, Ok(())) => {}
        (SandboxType::Docker | SandboxType::Gvisor, Err(Error::NoImage { image, reason })) => {
            assert_eq!(image, "127.0.0.9:1/herm-no-such-image:1");
            assert!(reason.contains("127.0.0.9:1"), "{reason}");
        }
        (engine, started) => panic!("{engine:?}: {started:?}"),
    }
    host.sandboxes.stop_all().await;
    assert_eq!(host.traces(), [""; 0]);
}

async fn what_an_earlier_server_left_of_a_sandbox_that_ended_is_cleared(host: Host) {
    drop(host.sandbox("one").await);
    let host = host.restarted();
    host.kill_all();
    wait_until(|| host.alive() == 0).await;
    assert!(host.dir.path().join("sandboxes/one").exists(), "the control: something is left");
    host.sandboxes.clear_left().await.unwrap();
    assert_eq!(host.traces(), [""; 0]);
    assert!(!host.dir.path().join("sandboxes/one").exists());
    assert!(host.dir.path().join("sandboxes/.shared").exists());
}
