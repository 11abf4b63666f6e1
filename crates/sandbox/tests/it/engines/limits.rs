//! What takes all it can get is contained, and neither the server nor a neighbour notices.

use std::time::Duration;

use herm_sandbox::{Error, Exec, Exit, Limits, Outcome, Sandbox, Spec};
use herm_types::sandbox::SandboxType;

use super::{Host, docker, every_engine, run, said, shell, text};

every_engine![
    a_fork_bomb_is_contained,
    a_memory_hog_is_stopped,
    memory_is_counted_over_all_processes,
    a_full_tmp_is_the_commands_own_trouble,
    orphans_and_zombies_are_reaped,
    open_files_are_limited,
    core_dumps_are_off,
    limits_are_those_of_the_deployment,
];

const MIB: u64 = 1024 * 1024;

impl Host {
    async fn small(&self, name: &str) -> Sandbox {
        let limits = Limits { cpu_millis: 500, memory_bytes: 192 * MIB, processes: 200 };
        self.sandboxes.ensure(Spec { limits, ..self.spec(name) }).await.unwrap()
    }
}

/// A neighbour, and a new command in the same deployment, go on as before.
async fn all_is_well(host: &Host, neighbour: &Sandbox) {
    assert_eq!(said(neighbour, "echo well").await, "well\n");
    let sandbox = host.small("one").await;
    assert_eq!(said(&sandbox, "echo again").await, "again\n");
}

fn is_stopped(outcome: &Result<Outcome, Error>) -> bool {
    match outcome {
        Ok(outcome) => outcome.exit != Exit::Code(0),
        // Where all of a sandbox is one process to the host, all of it goes.
        Err(error) => matches!(error, Error::Died),
    }
}

async fn a_fork_bomb_is_contained(host: Host) {
    let (sandbox, neighbour) = (host.small("one").await, host.sandbox("other").await);
    let bomb =
        Exec { timeout: Duration::from_secs(3), ..shell("bomb", "b() { b | b & }; b; wait; sleep 100") };
    let outcome = sandbox.exec(bomb).await;
    assert!(is_stopped(&outcome), "{outcome:?}");
    // What it left is not of its group any more: it goes with the sandbox.
    host.sandboxes.stop("one").await.unwrap();
    all_is_well(&host, &neighbour).await;
    host.stop().await;
}

async fn a_memory_hog_is_stopped(host: Host) {
    let (sandbox, neighbour) = (host.small("one").await, host.sandbox("other").await);
    let hog = "perl -e '$x = \"x\" x (512 * 1024 * 1024); print length $x'";
    assert_eq!(said(&neighbour, hog).await, "536870912", "the control: with more memory it succeeds");
    let outcome = sandbox.exec(shell("hog", hog)).await;
    assert!(is_stopped(&outcome), "{outcome:?}");
    all_is_well(&host, &neighbour).await;
    host.stop().await;
}

async fn memory_is_counted_over_all_processes(host: Host) {
    let (sandbox, neighbour) = (host.small("one").await, host.sandbox("other").await);
    // Each holds what it has until all have theirs, or one of them has been ended.
    let one = "perl -e '$x = \"x\" x (60 * 1024 * 1024); $| = 1; print \"held\\n\"; \
               open(F, \">\", \"held.$ARGV[0]\"); select(undef, undef, undef, 0.02) until -e \"go\"'";
    let many = format!(
        "for n in 1 2 3 4 5 6; do ({one} $n; touch over.$n) & done; \
         until set -- held.*; [ $# = 6 ] || ls over.* >/dev/null 2>&1; do sleep 0.02; done; touch go; wait"
    );
    let held = |outcome: &Outcome| text(&outcome.stdout).matches("held").count();
    assert_eq!(held(&run(&neighbour, &many).await), 6, "the control");
    match sandbox.exec(shell("many", &many)).await {
        Ok(outcome) => assert!(held(&outcome) < 6, "{outcome:?}"),
        Err(error) => assert!(matches!(error, Error::Died), "{error}"),
    }
    all_is_well(&host, &neighbour).await;
    host.stop().await;
}

async fn a_full_tmp_is_the_commands_own_trouble(host: Host) {
    let (sandbox, neighbour) = (host.small("one").await, host.sandbox("other").await);
    let outcome = sandbox.exec(shell("fill", "head -c 2000000000 /dev/zero > /tmp/full")).await;
    assert!(is_stopped(&outcome), "{outcome:?}");
    host.sandboxes.stop("one").await.unwrap();
    all_is_well(&host, &neighbour).await;
    host.stop().await;
}

async fn orphans_and_zombies_are_reaped(host: Host) {
    let sandbox = host.sandbox("one").await;
    // Each orphan's parent has gone before it ends.
    said(&sandbox, "n=0; while [ $n -lt 300 ]; do (true &) ; n=$((n + 1)); done").await;
    let zombies =
        "until ! cat /proc/[0-9]*/stat 2>/dev/null | grep -q ') Z '; do sleep 0.01; done; echo none";
    assert_eq!(said(&sandbox, zombies).await, "none\n");
    host.stop().await;
}

async fn open_files_are_limited(host: Host) {
    let sandbox = host.sandbox("one").await;
    let open = "perl -e 'for (1..5000) { open($f[$_], \"<\", \"/dev/null\") or do { print \"stopped\"; exit } } print \"all\"'";
    assert_eq!(said(&sandbox, open).await, "stopped");
    host.stop().await;
}

async fn core_dumps_are_off(host: Host) {
    let sandbox = host.sandbox("one").await;
    assert_eq!(said(&sandbox, "ulimit -c; ulimit -Hc").await, "0\n0\n");
    host.stop().await;
}

async fn limits_are_those_of_the_deployment(host: Host) {
    let _sandbox = host.small("one").await;
    let (cpu, memory) = match host.engine {
        SandboxType::Docker | SandboxType::Gvisor => {
            let format = "{{.HostConfig.NanoCpus}} {{.HostConfig.Memory}} {{.HostConfig.MemorySwap}}";
            let told = docker(&["inspect", "--format", format], &[&host.containers()[0]]);
            let numbers: Vec<u64> = told.split_whitespace().map(|number| number.parse().unwrap()).collect();
            assert_eq!(numbers[1], numbers[2], "nothing is swapped");
            (numbers[0] / 1_000_000, numbers[1])
        }
        SandboxType::Local => {
            let read = |file: &str| {
                let found = host
                    .control_groups()
                    .into_iter()
                    .find_map(|dir| std::fs::read_to_string(std::path::Path::new(&dir).join(file)).ok());
                found.unwrap_or_else(|| panic!("no control group has {file}")).trim().to_owned()
            };
            if host.control_groups().iter().any(|dir| std::path::Path::new(dir).join("memory.max").exists()) {
                assert_eq!(read("cpu.max"), "50000 100000");
                (500, read("memory.max").parse().unwrap())
            } else {
                (
                    read("cpu.cfs_quota_us").parse::<u64>().unwrap() / 100,
                    read("memory.limit_in_bytes").parse().unwrap(),
                )
            }
        }
    };
    assert_eq!((cpu, memory), (500, 192 * MIB));
    host.stop().await;
}
