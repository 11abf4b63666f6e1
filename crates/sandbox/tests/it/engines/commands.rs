use std::time::Duration;

use herm_sandbox::{Error, Exec, Exit};
use herm_testkit::process::wait_until;

use super::{Host, every_engine, run, said, shell, text};

every_engine![
    a_command_gives_both_its_streams_and_its_exit_status,
    a_command_reads_its_input_its_environment_and_its_directory,
    a_program_that_is_not_there_is_not_begun_and_the_sandbox_goes_on,
    a_name_is_used_once_and_its_second_use_gives_the_first_ones_result,
    a_result_is_kept_until_it_is_acknowledged,
    a_command_that_takes_too_long_is_ended_with_its_whole_group,
    a_command_that_is_killed_goes_with_its_whole_group,
    of_too_much_output_the_beginning_and_the_end_are_kept,
    what_goes_on_in_the_background_does_not_hold_the_command,
    many_commands_run_side_by_side,
    output_that_is_not_text_arrives_as_it_is,
    common_programs_do_their_work,
];

async fn a_command_gives_both_its_streams_and_its_exit_status(host: Host) {
    let sandbox = host.sandbox("one").await;
    let outcome = run(&sandbox, "echo out; echo err >&2; exit 7").await;
    assert_eq!(outcome.exit, Exit::Code(7));
    assert_eq!((text(&outcome.stdout), text(&outcome.stderr)), ("out\n".to_owned(), "err\n".to_owned()));
    assert_eq!(outcome.dropped_bytes, 0);
    assert_eq!(run(&sandbox, "kill -SEGV $$").await.exit, Exit::Signal(11));
    host.stop().await;
}

async fn a_command_reads_its_input_its_environment_and_its_directory(host: Host) {
    let sandbox = host.sandbox("one").await;
    said(&sandbox, "mkdir -p /workspace/below").await;
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

async fn a_program_that_is_not_there_is_not_begun_and_the_sandbox_goes_on(host: Host) {
    let sandbox = host.sandbox("one").await;
    let exec = Exec { argv: vec!["no-such-program".to_owned()], ..shell("missing", "") };
    let failed = sandbox.exec(exec).await;
    assert!(matches!(&failed, Err(Error::NotBegun(_))), "{failed:?}");
    assert_eq!(said(&sandbox, "echo still here").await, "still here\n");
    host.stop().await;
}

async fn a_name_is_used_once_and_its_second_use_gives_the_first_ones_result(host: Host) {
    let sandbox = host.sandbox("one").await;
    let command = "echo made >> log; wc -l < log";
    for _ in 0..2 {
        let outcome = sandbox.exec(shell("once", command)).await.unwrap();
        assert_eq!(text(&outcome.stdout), "1\n");
    }
    // At the same time, too.
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

async fn a_result_is_kept_until_it_is_acknowledged(host: Host) {
    let sandbox = host.sandbox("one").await;
    let first = sandbox.exec(shell("kept", "echo kept")).await.unwrap();
    assert_eq!(sandbox.attach("kept").await.unwrap(), Some(first));
    sandbox.acknowledge("kept");
    assert_eq!(sandbox.attach("kept").await.unwrap(), None);
    assert_eq!(sandbox.attach("never-begun").await.unwrap(), None);
    host.stop().await;
}

/// What a command left in its process group goes with it; the marker says whether something went on.
async fn a_command_that_takes_too_long_is_ended_with_its_whole_group(host: Host) {
    let sandbox = host.sandbox("one").await;
    let stubborn = "trap '' TERM; (trap '' TERM; while :; do date +%N > beat; sleep 0.01; done) & wait";
    let exec = Exec { timeout: Duration::from_millis(200), ..shell("slow", stubborn) };
    let outcome = sandbox.exec(exec).await.unwrap();
    assert_eq!(outcome.exit, Exit::TimedOut);
    nothing_beats(&sandbox).await;
    host.stop().await;
}

async fn a_command_that_is_killed_goes_with_its_whole_group(host: Host) {
    let sandbox = host.sandbox("one").await;
    let exec = shell("killed", "(while :; do date +%N > beat; sleep 0.01; done) & wait");
    let beat = host.workspace("one").join("beat");
    let (outcome, ()) = tokio::join!(sandbox.exec(exec), async {
        wait_until(|| beat.exists()).await;
        sandbox.kill("killed");
    });
    assert_eq!(outcome.unwrap().exit, Exit::Killed);
    nothing_beats(&sandbox).await;
    host.stop().await;
}

/// No process of the command goes on. One that was killed is there until the kernel gives it the processor, to end.
async fn nothing_beats(sandbox: &herm_sandbox::Sandbox) {
    let gone = "while grep -q '[b]eat' /proc/[0-9]*/cmdline 2>/dev/null; do sleep 0.01; done; echo gone";
    assert_eq!(said(sandbox, gone).await, "gone\n");
}

async fn of_too_much_output_the_beginning_and_the_end_are_kept(host: Host) {
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

async fn what_goes_on_in_the_background_does_not_hold_the_command(host: Host) {
    let sandbox = host.sandbox("one").await;
    let outcome = run(&sandbox, "setsid sleep 1000 & echo begun").await;
    assert_eq!((outcome.exit, text(&outcome.stdout)), (Exit::Code(0), "begun\n".to_owned()));
    host.stop().await;
}

async fn many_commands_run_side_by_side(host: Host) {
    let sandbox = host.sandbox("one").await;
    // Each waits until all are there.
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

async fn output_that_is_not_text_arrives_as_it_is(host: Host) {
    let sandbox = host.sandbox("one").await;
    let outcome = run(&sandbox, r"printf '\377\000\001\r\n'").await;
    assert_eq!(outcome.stdout, b"\xff\x00\x01\r\n");
    host.stop().await;
}

/// What the guest gives up is nothing that these need.
async fn common_programs_do_their_work(host: Host) {
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
        assert_eq!(said(&sandbox, command).await, result, "{command}");
    }
    host.stop().await;
}
