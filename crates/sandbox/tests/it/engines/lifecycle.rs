use std::time::Duration;

use herm_sandbox::{Error, Exit, Spec};
use herm_testkit::process::wait_until;
use herm_types::sandbox::SandboxType;

use super::{Host, LISTING, every_engine, reject_proxy_connections, run, shell, stdout_of, text};

every_engine![
    the_workspace_outlives_the_sandbox_and_tmp_does_not,
    concurrent_callers_share_one_sandbox,
    stopping_a_sandbox_kills_its_processes_and_leaves_nothing_behind,
    a_sandbox_whose_guest_was_killed_is_restarted,
    a_restarted_server_finds_the_sandbox_and_the_result_of_a_running_command,
    a_guest_exits_when_its_server_stays_unreachable,
    starting_and_stopping_sandboxes_repeatedly_leaves_nothing_behind,
    remains_of_a_previous_servers_ended_sandbox_are_cleaned_up,
    a_missing_image_is_fetched_and_a_failure_is_reported,
];

async fn the_workspace_outlives_the_sandbox_and_tmp_does_not(host: Host) {
    let sandbox = host.sandbox("one").await;
    stdout_of(&sandbox, "echo retained > file; echo lost > /tmp/file").await;
    host.sandboxes.stop("one").await.unwrap();
    let sandbox = host.sandbox("one").await;
    assert_eq!(stdout_of(&sandbox, "cat file; cat /tmp/file 2>/dev/null || true").await, "retained\n");
    host.stop().await;
}

async fn concurrent_callers_share_one_sandbox(host: Host) {
    let all = futures_util::future::join_all((0..8).map(|_| host.sandbox("one"))).await;
    assert_eq!(host.running_sandboxes(), 1);
    for sandbox in all {
        assert_eq!(stdout_of(&sandbox, "echo here").await, "here\n");
    }
    host.stop().await;
}

async fn stopping_a_sandbox_kills_its_processes_and_leaves_nothing_behind(host: Host) {
    let sandbox = host.sandbox("one").await;
    let stubborn = "for n in 1 2 3; do setsid sh -c 'trap \"\" TERM HUP; while :; do date +%N > beat; sleep 0.01; done' \
                    >/dev/null 2>&1 & done";
    stdout_of(&sandbox, stubborn).await;
    let beat = host.workspace("one").join("beat");
    wait_until(|| beat.exists()).await;
    host.sandboxes.stop("one").await.unwrap();
    assert_eq!(host.leftovers(), [""; 0]);
    std::fs::remove_file(&beat).unwrap();
    // Stopping a sandbox that is already stopped succeeds and has no effect.
    host.sandboxes.stop("one").await.unwrap();
    assert!(!beat.exists(), "a process is still running");
}

async fn a_sandbox_whose_guest_was_killed_is_restarted(host: Host) {
    let sandbox = host.sandbox("one").await;
    let command =
        tokio::spawn(async move { sandbox.exec(shell("killed", "touch started; sleep 1000")).await });
    wait_until(|| host.workspace("one").join("started").exists()).await;
    host.kill_all();
    let outcome = command.await.unwrap();
    assert!(matches!(outcome, Err(Error::Died)), "{outcome:?}");
    let sandbox = host.sandbox("one").await;
    assert_eq!(stdout_of(&sandbox, LISTING).await, "started\n");
    assert_eq!(host.running_sandboxes(), 1);
    host.stop().await;
}

async fn a_restarted_server_finds_the_sandbox_and_the_result_of_a_running_command(host: Host) {
    let sandbox = host.sandbox("one").await;
    let command = "echo made >> log; until test -e go; do sleep 0.01; done; cat log";
    let waiting = tokio::spawn(async move { sandbox.exec(shell("running", command)).await });
    wait_until(|| host.workspace("one").join("log").exists()).await;
    // Abort the task: this drops its handle to the guest, as would happen if the server process exited.
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    let host = host.restarted();
    std::fs::write(host.workspace("one").join("go"), "").unwrap();
    let sandbox = host.sandboxes.find("one").await.unwrap().expect("the sandbox is found");
    let outcome = sandbox.attach("running").await.unwrap().expect("the guest knows the command");
    assert_eq!((outcome.exit, text(&outcome.stdout)), (Exit::Code(0), "made\n".to_owned()));
    host.stop().await;
}

async fn a_guest_exits_when_its_server_stays_unreachable(host: Host) {
    let host = Host::with(host.engine, Duration::from_millis(300), reject_proxy_connections());
    let sandbox = host.sandbox("one").await;
    stdout_of(&sandbox, "setsid sh -c 'while :; do date +%N > beat; sleep 0.01; done' >/dev/null 2>&1 &")
        .await;
    assert_eq!(host.running_sandboxes(), 1);
    drop(sandbox);
    let host = host.abandon();
    wait_until(|| host.running_sandboxes() == 0).await;
}

async fn starting_and_stopping_sandboxes_repeatedly_leaves_nothing_behind(host: Host) {
    for round in 0..crate::rounds(50) {
        let sandbox = host.sandbox("one").await;
        assert_eq!(run(&sandbox, &format!("echo {round}")).await.exit, Exit::Code(0));
        host.sandboxes.stop("one").await.unwrap();
    }
    assert_eq!(host.leftovers(), [""; 0]);
    let remaining: Vec<_> = std::fs::read_dir(host.dir.path().join("sandboxes")).unwrap().collect();
    assert_eq!(remaining.len(), 1, "only the shared files remain: {remaining:?}");
}

/// The image is in a registry that cannot be reached. The test checks that the server tries to pull the image and
/// reports the failure.
async fn a_missing_image_is_fetched_and_a_failure_is_reported(host: Host) {
    let image = Some("127.0.0.9:1/herm-no-such-image:1".to_owned());
    let started = host.sandboxes.ensure(Spec { image, ..host.spec("one") }).await;
    match (host.engine, started.map(drop)) {
        // Local sandboxes ignore the image.
        (SandboxType::Local, Ok(())) => {}
        (SandboxType::Docker | SandboxType::Gvisor, Err(Error::NoImage { image, reason })) => {
            assert_eq!(image, "127.0.0.9:1/herm-no-such-image:1");
            assert!(reason.contains("127.0.0.9:1"), "{reason}");
        }
        (engine, started) => panic!("{engine:?}: {started:?}"),
    }
    host.sandboxes.stop_all().await;
    assert_eq!(host.leftovers(), [""; 0]);
}

async fn remains_of_a_previous_servers_ended_sandbox_are_cleaned_up(host: Host) {
    drop(host.sandbox("one").await);
    let host = host.restarted();
    host.kill_all();
    wait_until(|| host.running_sandboxes() == 0).await;
    assert!(host.dir.path().join("sandboxes/one").exists(), "the control: the directory remains");
    host.sandboxes.clean_up_stale().await.unwrap();
    assert_eq!(host.leftovers(), [""; 0]);
    assert!(!host.dir.path().join("sandboxes/one").exists());
    assert!(host.dir.path().join("sandboxes/.shared").exists());
}
