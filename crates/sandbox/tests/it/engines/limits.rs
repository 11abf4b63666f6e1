//! Tests of resource limits. A sandbox that exhausts its limits must not affect the server or other sandboxes.

use std::time::Duration;

use herm_sandbox::{Error, Exec, Exit, Limits, Outcome, Sandbox, Spec};
use herm_types::sandbox::SandboxType;

use super::{Host, docker, every_engine, run, shell, stdout_of, text};

every_engine![
    a_fork_bomb_is_contained,
    a_command_that_exceeds_the_memory_limit_is_killed,
    the_memory_limit_applies_to_all_processes_together,
    a_full_tmp_affects_only_its_own_sandbox,
    orphans_and_zombies_are_reaped,
    open_files_are_limited,
    core_dumps_are_disabled,
    the_limits_of_the_specification_are_applied,
];

const MIB: u64 = 1024 * 1024;

impl Host {
    async fn limited_sandbox(&self, name: &str) -> Sandbox {
        let limits = Limits { cpu_millis: 500, memory_bytes: 192 * MIB, processes: 200 };
        self.sandboxes.ensure(Spec { limits, ..self.spec(name) }).await.unwrap()
    }
}

/// Asserts that commands still run, both in a neighbouring sandbox and in the sandbox that reached its limit.
async fn assert_unaffected(host: &Host, neighbour: &Sandbox) {
    assert_eq!(stdout_of(neighbour, "echo well").await, "well\n");
    let sandbox = host.limited_sandbox("one").await;
    assert_eq!(stdout_of(&sandbox, "echo again").await, "again\n");
}

fn is_failure(outcome: &Result<Outcome, Error>) -> bool {
    match outcome {
        Ok(outcome) => outcome.exit != Exit::Code(0),
        // A gVisor sandbox is a single process on the host, so the kernel may kill the whole sandbox.
        Err(error) => matches!(error, Error::Died),
    }
}

async fn a_fork_bomb_is_contained(host: Host) {
    let (sandbox, neighbour) = (host.limited_sandbox("one").await, host.sandbox("other").await);
    let bomb =
        Exec { timeout: Duration::from_secs(3), ..shell("bomb", "b() { b | b & }; b; wait; sleep 100") };
    let outcome = sandbox.exec(bomb).await;
    assert!(is_failure(&outcome), "{outcome:?}");
    // Stop the sandbox, because some of the fork bomb's processes may still be running.
    host.sandboxes.stop("one").await.unwrap();
    assert_unaffected(&host, &neighbour).await;
    host.stop().await;
}

async fn a_command_that_exceeds_the_memory_limit_is_killed(host: Host) {
    let (sandbox, neighbour) = (host.limited_sandbox("one").await, host.sandbox("other").await);
    let hog = "perl -e '$x = \"x\" x (512 * 1024 * 1024); print length $x'";
    assert_eq!(
        stdout_of(&neighbour, hog).await,
        "536870912",
        "the control: the command succeeds with more memory"
    );
    let outcome = sandbox.exec(shell("hog", hog)).await;
    assert!(is_failure(&outcome), "{outcome:?}");
    assert_unaffected(&host, &neighbour).await;
    host.stop().await;
}

async fn the_memory_limit_applies_to_all_processes_together(host: Host) {
    let (sandbox, neighbour) = (host.limited_sandbox("one").await, host.sandbox("other").await);
    // Each process keeps its memory until all six processes have allocated theirs, or until one of them has been
    // killed.
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
    assert_unaffected(&host, &neighbour).await;
    host.stop().await;
}

async fn a_full_tmp_affects_only_its_own_sandbox(host: Host) {
    let (sandbox, neighbour) = (host.limited_sandbox("one").await, host.sandbox("other").await);
    let outcome = sandbox.exec(shell("fill", "head -c 2000000000 /dev/zero > /tmp/full")).await;
    assert!(is_failure(&outcome), "{outcome:?}");
    host.sandboxes.stop("one").await.unwrap();
    assert_unaffected(&host, &neighbour).await;
    host.stop().await;
}

async fn orphans_and_zombies_are_reaped(host: Host) {
    let sandbox = host.sandbox("one").await;
    // The parent of each background process exits first. The process thus becomes an orphan, which the guest must reap.
    stdout_of(&sandbox, "n=0; while [ $n -lt 300 ]; do (true &) ; n=$((n + 1)); done").await;
    let zombies =
        "until ! cat /proc/[0-9]*/stat 2>/dev/null | grep -q ') Z '; do sleep 0.01; done; echo none";
    assert_eq!(stdout_of(&sandbox, zombies).await, "none\n");
    host.stop().await;
}

async fn open_files_are_limited(host: Host) {
    let sandbox = host.sandbox("one").await;
    let open = "perl -e 'for (1..5000) { open($f[$_], \"<\", \"/dev/null\") or do { print \"stopped\"; exit } } print \"all\"'";
    assert_eq!(stdout_of(&sandbox, open).await, "stopped");
    host.stop().await;
}

async fn core_dumps_are_disabled(host: Host) {
    let sandbox = host.sandbox("one").await;
    assert_eq!(stdout_of(&sandbox, "ulimit -c; ulimit -Hc").await, "0\n0\n");
    host.stop().await;
}

async fn the_limits_of_the_specification_are_applied(host: Host) {
    let _sandbox = host.limited_sandbox("one").await;
    let (cpu, memory) = match host.engine {
        SandboxType::Docker | SandboxType::Gvisor => {
            let format = "{{.HostConfig.NanoCpus}} {{.HostConfig.Memory}} {{.HostConfig.MemorySwap}}";
            let output = docker(&["inspect", "--format", format], &[&host.containers()[0]]);
            let numbers: Vec<u64> = output.split_whitespace().map(|number| number.parse().unwrap()).collect();
            assert_eq!(numbers[1], numbers[2], "swapping must be disabled");
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
