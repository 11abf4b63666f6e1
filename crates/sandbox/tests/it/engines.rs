//! Tests of real sandboxes on every engine: commands, isolation, attacks, limits and lifecycle.

mod attacks;
mod commands;
mod isolation;
mod lifecycle;
mod limits;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use herm_sandbox::{
    Certificates, DockerOptions, Exec, Exit, Limits, Options, Outcome, ProxyHandler, Sandbox, Sandboxes, Spec,
};
use herm_testkit::process::{kill_children, processes_that_mention};
use herm_types::sandbox::SandboxType;
use herm_types::time::SystemRng;
use tempfile::TempDir;

/// The timeout of commands in most tests. Even on a busy machine, no command takes this long.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(3_600);
/// The reconnect timeout of sandboxes in tests. No test leaves a sandbox without a server for this long. The timeout
/// ends sandboxes that a failed test leaves behind.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(600);
/// A shell command that lists the working directory. It does not use `ls`, because the gVisor release of 2022 does not
/// support a system call that `ls` needs.
const LISTING: &str = "for name in * .[!.]*; do test -e \"$name\" && echo \"$name\"; done; true";
const OUTPUT_BYTES: usize = 64 * 1024;

/// Generates one test per engine for each listed function. The test calls the function.
macro_rules! every_engine {
    ($($name:ident,)*) => {
        $(mod $name {
            use herm_types::sandbox::SandboxType;

            use super::super::Host;

            #[tokio::test]
            async fn local() {
                super::$name(Host::new(SandboxType::Local)).await;
            }

            #[tokio::test]
            async fn docker() {
                super::$name(Host::new(SandboxType::Docker)).await;
            }

            #[tokio::test]
            async fn gvisor() {
                super::$name(Host::new(SandboxType::Gvisor)).await;
            }
        })*
    };
}
use every_engine;

/// Simulates a server: its data directory and its sandboxes.
struct Host {
    engine: SandboxType,
    dir: TempDir,
    sandboxes: Sandboxes,
}

/// Returns a proxy handler that immediately closes every connection.
fn reject_proxy_connections() -> ProxyHandler {
    Arc::new(|_, stream| drop(stream))
}

fn docker_host() -> String {
    let host = std::env::var("HERM_TEST_DOCKER_HOST");
    host.expect("HERM_TEST_DOCKER_HOST is not set: run the tests through scripts/docker.sh")
}

fn open(dir: &TempDir, reconnect_timeout: Duration, proxy_handler: ProxyHandler) -> Sandboxes {
    let options = Options {
        data_dir: dir.path().to_owned(),
        rng: Arc::new(SystemRng),
        reconnect_timeout,
        docker: DockerOptions { host: Some(docker_host()), image: "herm-sandbox:test".to_owned() },
        certificates: Certificates::default(),
        proxy_handler,
    };
    Sandboxes::new(options).unwrap()
}

impl Host {
    fn new(engine: SandboxType) -> Self {
        Self::with(engine, RECONNECT_TIMEOUT, reject_proxy_connections())
    }

    fn with(engine: SandboxType, reconnect_timeout: Duration, proxy_handler: ProxyHandler) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sandboxes = open(&dir, reconnect_timeout, proxy_handler);
        Self { engine, dir, sandboxes }
    }

    fn workspace(&self, name: &str) -> PathBuf {
        self.dir.path().join("workspaces").join(name)
    }

    fn spec(&self, name: &str) -> Spec {
        Spec {
            sandbox_id: name.to_owned(),
            engine: self.engine,
            image: None,
            workspace_dir: self.workspace(name),
            env: vec![("GREETING".to_owned(), "hello".to_owned())],
            limits: Limits::default(),
        }
    }

    async fn sandbox(&self, name: &str) -> Sandbox {
        self.sandboxes.ensure(self.spec(name)).await.unwrap()
    }

    /// Simulates `kill -9` and a restart of the server: drops all handles to guests, and opens the same data directory
    /// again.
    fn restarted(self) -> Self {
        let Self { engine, dir, sandboxes } = self;
        drop(sandboxes);
        let sandboxes = open(&dir, RECONNECT_TIMEOUT, reject_proxy_connections());
        Self { engine, dir, sandboxes }
    }

    /// Simulates a server that exits and is not restarted. Its sandboxes keep running.
    fn abandon(self) -> AbandonedHost {
        let Self { engine, dir, .. } = self;
        AbandonedHost { engine, dir }
    }

    fn running_sandboxes(&self) -> usize {
        running_sandboxes(self.engine, &self.dir)
    }

    fn containers(&self) -> Vec<String> {
        containers(&self.dir)
    }

    fn control_groups(&self) -> Vec<String> {
        control_groups(&instance(&self.dir))
    }

    /// Kills all sandboxes from the host, as the host's kernel might when memory is short.
    fn kill_all(&self) {
        match self.engine {
            SandboxType::Local => processes(&self.dir).into_iter().for_each(kill_children),
            SandboxType::Docker | SandboxType::Gvisor => {
                let all = self.containers();
                docker(&["kill"], &all.iter().map(String::as_str).collect::<Vec<_>>());
            }
        }
    }

    /// Lists the host resources that this server's sandboxes still occupy: mounts, sockets, processes, control groups
    /// and containers.
    fn leftovers(&self) -> Vec<String> {
        let needle = self.dir.path().display().to_string();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounts = mounts.lines().filter(|line| line.contains(&needle)).map(str::to_owned);
        let sockets = std::fs::read_to_string("/proc/net/unix").unwrap();
        let sockets =
            sockets.lines().filter(|line| line.contains(&needle)).map(str::to_owned).collect::<Vec<_>>();
        let processes = processes(&self.dir).into_iter().map(|id| format!("process {id}"));
        let groups = self.control_groups();
        mounts.chain(sockets).chain(processes).chain(groups).chain(self.containers()).collect()
    }

    async fn stop(self) {
        self.sandboxes.stop_all().await;
    }
}

/// The data directory of a server that has exited. Its sandboxes may still be running.
struct AbandonedHost {
    engine: SandboxType,
    dir: TempDir,
}

impl AbandonedHost {
    fn running_sandboxes(&self) -> usize {
        running_sandboxes(self.engine, &self.dir)
    }
}

/// Returns the number of sandboxes that have a process or a container on the host.
fn running_sandboxes(engine: SandboxType, dir: &TempDir) -> usize {
    match engine {
        SandboxType::Local => processes(dir).len(),
        SandboxType::Docker | SandboxType::Gvisor => containers(dir).len(),
    }
}

fn instance(dir: &TempDir) -> String {
    std::fs::read_to_string(dir.path().join("sandboxes/.shared/instance")).unwrap()
}

/// Returns the host process ids of this server's local sandboxes, one per sandbox.
fn processes(dir: &TempDir) -> Vec<u32> {
    processes_that_mention(Path::new(&format!("herm-sandbox:{}:", instance(dir))))
}

/// Returns the ids of this server's containers, including stopped ones.
fn containers(dir: &TempDir) -> Vec<String> {
    let label = format!("label=dev.herm.instance={}", instance(dir));
    docker(&["ps", "--all", "--quiet", "--filter"], &[&label]).lines().map(str::to_owned).collect()
}

fn docker(command: &[&str], arguments: &[&str]) -> String {
    let output =
        Command::new("docker").args(["-H", &docker_host()]).args(command).args(arguments).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Returns the control groups of this server's sandboxes. Also returns the parent group if it exists without sandboxes,
/// because it should have been removed together with the last sandbox.
fn control_groups(instance: &str) -> Vec<String> {
    let name = format!("herm-{instance}");
    let mut found = Vec::new();
    let mut pending = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = pending.pop() {
        let below = std::fs::read_dir(&dir).into_iter().flatten().flatten().map(|entry| entry.path());
        let below: Vec<PathBuf> = below.filter(|path| path.is_dir() && !path.is_symlink()).collect();
        match dir.file_name().is_some_and(|found| found == name.as_str()) {
            false => pending.extend(below),
            true if below.is_empty() => found.push(dir.display().to_string()),
            true => found.extend(below.iter().map(|path| path.display().to_string())),
        }
    }
    found
}

fn shell(exec_id: &str, command: &str) -> Exec {
    Exec {
        exec_id: exec_id.to_owned(),
        argv: ["sh", "-c", command].map(str::to_owned).to_vec(),
        env: Vec::new(),
        cwd: "/workspace".to_owned(),
        stdin: Vec::new(),
        timeout: COMMAND_TIMEOUT,
        output_limit_bytes: OUTPUT_BYTES,
    }
}

async fn run(sandbox: &Sandbox, command: &str) -> Outcome {
    // Derive the exec id from the command line, which is unique within each test.
    let exec_id: String = command.bytes().take(60).map(|byte| format!("{byte:02x}")).collect();
    let outcome = sandbox.exec(shell(&exec_id, command)).await.unwrap();
    sandbox.acknowledge(&exec_id);
    outcome
}

/// Runs a command in a sandbox, asserts that it succeeds and returns its standard output.
async fn stdout_of(sandbox: &Sandbox, command: &str) -> String {
    let outcome = run(sandbox, command).await;
    let (stdout, stderr) = (text(&outcome.stdout), text(&outcome.stderr));
    assert_eq!(outcome.exit, Exit::Code(0), "{command}: {stdout}{stderr}");
    stdout
}

/// Returns true if the command succeeds on the host, outside any sandbox.
fn succeeds_outside(command: &str) -> bool {
    Command::new("sh").args(["-c", command]).output().unwrap().status.success()
}

/// Asserts that the command succeeds on the host and fails in the sandbox.
async fn assert_fails_inside(sandbox: &Sandbox, command: &str) {
    assert!(succeeds_outside(command), "the control fails: {command}");
    let outcome = run(sandbox, command).await;
    assert_ne!(outcome.exit, Exit::Code(0), "{command}: {}", text(&outcome.stdout));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
