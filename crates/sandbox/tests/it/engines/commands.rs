use std::time::Duration;

use herm_sandbox::{Error, Exec, Exit};
use herm_testkit::process::wait_until;

use super::{Host, every_engine, run, shell, stdout_of, text};

every_engine![
    a_command_returns_both_streams_and_its_exit_status,
    a_command_gets_its_stdin_environment_and_directory,
    a_missing_program_fails_to_start_and_the_sandbox_stays_usable,
    a_command_runs_once_per_id_and_a_repeated_exec_returns_its_result,
    a_result_is_retained_until_it_is_acknowledged,
    a_command_that_times_out_is_killed_with_its_process_group,
    killing_a_command_kills_its_process_group,
    the_beginning_and_the_end_of_long_output_are_retained,
    a_background_process_does_not_delay_the_result,
    many_commands_run_concurrently,
    binary_output_is_returned_unchanged,
    common_programs_work,
];

async fn a_command_returns_both_streams_and_its_exit_status(host: Host) {
    let sandbox = host.sandbox("one").await;
    let outcome = run(&sandbox, "echo out; echo err >&2; exit 7").await;
    assert_eq!(outcome.exit, Exit::Code(7));
    assert_eq!((text(&outcome.stdout), text(&outcome.stderr)), ("out\n".to_owned(), "err\n".to_owned()));
    assert_eq!(outcome.dropped_bytes, 0);
    assert_eq!(run(&sandbox, "kill -SEGV $$").await.exit, Exit::Signal(11));
    host.stop().await;
}

async fn a_command_gets_its_stdin_environment_and_directory(host: Host) {
    let sandbox = host.sandbox("one").await;
    stdout_of(&sandbox, "mkdir -p /workspace/below").await;
    let exec = Exec {
        stdin: b"from outside".to_vec(),
        env: vec![("NAME".to_owned(), "Ada".to_owned())],
        cwd: "/workspace/below".to_owned(),
        ..shell("reads", r#"cat; echo; echo "$GREETING $NAME $HOME"; pwd"#)
    };
    let outcome = sandbox.exec(exec).await.unwrap();
    assert_eq!(text(&outcome.stdout), "from outside\nhello Ada /workspace\n/workspace/below\n");
    host.stop().await;
}

async fn a_missing_program_fails_to_start_and_the_sandbox_stays_usable(host: Host) {
    let sandbox = host.sandbox("one").await;
    let exec = Exec { argv: vec!["no-such-program".to_owned()], ..shell("missing", "") };
    let failed = sandbox.exec(exec).await;
    assert!(matches!(&failed, Err(Error::CommandNotStarted(_))), "{failed:?}");
    assert_eq!(stdout_of(&sandbox, "echo still here").await, "still here\n");
    host.stop().await;
}

async fn a_command_runs_once_per_id_and_a_repeated_exec_returns_its_result(host: Host) {
    let sandbox = host.sandbox("one").await;
    let command = "echo made >> log; wc -l < log";
    for _ in 0..2 {
        let outcome = sandbox.exec(shell("once", command)).await.unwrap();
        assert_eq!(text(&outcome.stdout), "1\n");
    }
    // The command also runs only once if two concurrent calls use the same id.
    let (left, right) = tokio::join!(
        sandbox.exec(shell("twice", "echo made >> log; wc -l < log")),
        sandbox.exec(shell("twice", "echo made >> log; wc -l < log")),
    );
    assert_eq!(
        (text(&left.unwrap().stdout), text(&right.unwrap().stdout)),
        ("2\n".to_owned(), "2\n".to_owned())
    );
    host.stop().await;
}

async fn a_result_is_retained_until_it_is_acknowledged(host: Host) {
    let sandbox = host.sandbox("one").await;
    let first = sandbox.exec(shell("retained", "echo retained")).await.unwrap();
    assert_eq!(sandbox.attach("retained").await.unwrap(), Some(first));
    sandbox.acknowledge("retained");
    assert_eq!(sandbox.attach("retained").await.unwrap(), None);
    assert_eq!(sandbox.attach("never-started").await.unwrap(), None);
    host.stop().await;
}

async fn a_command_that_times_out_is_killed_with_its_process_group(host: Host) {
    let sandbox = host.sandbox("one").await;
    let stubborn = "trap '' TERM; (trap '' TERM; while :; do date +%N > beat; sleep 0.01; done) & wait";
    let exec = Exec { timeout: Duration::from_millis(200), ..shell("slow", stubborn) };
    let outcome = sandbox.exec(exec).await.unwrap();
    assert_eq!(outcome.exit, Exit::TimedOut);
    assert_nothing_beats(&sandbox).await;
    host.stop().await;
}

async fn killing_a_command_kills_its_process_group(host: Host) {
    let sandbox = host.sandbox("one").await;
    let exec = shell("killed", "(while :; do date +%N > beat; sleep 0.01; done) & wait");
    let beat = host.workspace("one").join("beat");
    let (outcome, ()) = tokio::join!(sandbox.exec(exec), async {
        wait_until(|| beat.exists()).await;
        sandbox.kill("killed");
    });
    assert_eq!(outcome.unwrap().exit, Exit::Killed);
    assert_nothing_beats(&sandbox).await;
    host.stop().await;
}

/// Waits until no process in the sandbox has `beat` in its command line. A killed process disappears only after the
/// kernel has scheduled it again.
async fn assert_nothing_beats(sandbox: &herm_sandbox::Sandbox) {
    let wait = "while grep -q '[b]eat' /proc/[0-9]*/cmdline 2>/dev/null; do sleep 0.01; done; echo ended";
    assert_eq!(stdout_of(sandbox, wait).await, "ended\n");
}

async fn the_beginning_and_the_end_of_long_output_are_retained(host: Host) {
    let sandbox = host.sandbox("one").await;
    let exec =
        Exec { output_limit_bytes: 8192, ..shell("flood", "echo first; yes | head -c 10000000; echo last") };
    let outcome = sandbox.exec(exec).await.unwrap();
    let stdout = text(&outcome.stdout);
    assert!(stdout.starts_with("first\ny\n") && stdout.ends_with("y\nlast\n"), "{stdout}");
    assert!(stdout.len() < 8192, "{}", stdout.len());
    assert!(outcome.dropped_bytes > 9_900_000, "{}", outcome.dropped_bytes);
    host.stop().await;
}

async fn a_background_process_does_not_delay_the_result(host: Host) {
    let sandbox = host.sandbox("one").await;
    let outcome = run(&sandbox, "setsid sleep 1000 & echo started").await;
    assert_eq!((outcome.exit, text(&outcome.stdout)), (Exit::Code(0), "started\n".to_owned()));
    host.stop().await;
}

async fn many_commands_run_concurrently(host: Host) {
    let sandbox = host.sandbox("one").await;
    // Each command waits until all 20 commands are running, so the test passes only if they run concurrently.
    let command =
        |n: usize| format!("touch at.{n}; until set -- at.*; [ $# = 20 ]; do sleep 0.01; done; echo {n}");
    let all = (0..20).map(|n| {
        let sandbox = sandbox.clone();
        tokio::spawn(async move { sandbox.exec(shell(&format!("many{n}"), &command(n))).await })
    });
    for (n, one) in all.collect::<Vec<_>>().into_iter().enumerate() {
        assert_eq!(text(&one.await.unwrap().unwrap().stdout), format!("{n}\n"));
    }
    host.stop().await;
}

async fn binary_output_is_returned_unchanged(host: Host) {
    let sandbox = host.sandbox("one").await;
    let outcome = run(&sandbox, r"printf '\377\000\001\r\n'").await;
    assert_eq!(outcome.stdout, b"\xff\x00\x01\r\n");
    host.stop().await;
}

/// Checks that common programs work despite the system call filter and the guest's other restrictions.
async fn common_programs_work(host: Host) {
    let sandbox = host.sandbox("one").await;
    for (command, result) in [
        (
            "git init -q repo && cd repo && git config user.email a@b.c && git config user.name Ada && echo x > f && git add f && \
          git commit -qm first && git log --format=%s",
            "first\n",
        ),
        (
            "/usr/bin/python3 -c 'import threading, os; t = threading.Thread(target=lambda: os.write(1, b\"threads\\n\")); t.start(); t.join()'",
            "threads\n",
        ),
        (
            "/usr/bin/python3 -c 'import os; p = os.fork(); os._exit(7) if p == 0 else print(os.waitstatus_to_exitcode(os.wait()[1]))'",
            "7\n",
        ),
        ("id -un; id -gn", "agent\nagent\n"),
        ("mkfifo pipe && (echo through > pipe &) && cat pipe && rm pipe", "through\n"),
        ("printf 'b\\na\\n' | sort | tar -cf x.tar --files-from=/dev/null && tar -tf x.tar | wc -l", "0\n"),
        ("curl -sS file:///etc/passwd | head -c 4", "root"),
        ("date -d @0 -u +%Y; nice -n 5 true; timeout 5 true; nproc > /dev/null && echo well", "1970\nwell\n"),
    ] {
        assert_eq!(stdout_of(&sandbox, command).await, result, "{command}");
    }
    host.stop().await;
}
