//! Sandboxes, real ones of every engine: what a command gets, what it cannot get at, and how a sandbox lives and ends.

mod attacks;
mod commands;
mod isolation;
mod life;
mod limits;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use herm_sandbox::{
    Carry, Certificates, DockerOptions, Exec, Exit, Limits, Options, Outcome, Sandbox, Sandboxes, Spec,
};
use herm_testkit::process::{kill_children, processes_that_mention};
use herm_types::sandbox::SandboxType;
use herm_types::time::SystemRng;
use tempfile::TempDir;

/// Longer than any command here takes, on a machine of any speed, unless it is to be stopped.
const LONG: Duration = Duration::from_secs(3_600);
/// Longer than any test is without a server; after it, what a test that failed has left ends itself.
const AWAY: Duration = Duration::from_secs(600);
/// What is in the working directory. `ls` asks gVisor of 2022 in a way that it does not know.
const LISTING: &str = "for name in * .[!.]*; do test -e \"$name\" && echo \"$name\"; done; true";
const OUTPUT_BYTES: usize = 64 * 1024;

/// Makes of each function a test on every engine.
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

/// A server's sandboxes in a directory of their own.
struct Host {
    engine: SandboxType,
    dir: TempDir,
    sandboxes: Sandboxes,
}

/// A server without a way out for its sandboxes: what dials the proxy is hung up on.
fn no_way_out() -> Carry {
    Arc::new(|_, stream| drop(stream))
}

fn docker_host() -> String {
    let host = std::env::var("HERM_TEST_DOCKER_HOST");
    host.expect("HERM_TEST_DOCKER_HOST is not set: run the tests through scripts/docker.sh")
}

fn open(dir: &TempDir, away_limit: Duration, carry: Carry) -> Sandboxes {
    let options = Options {
        data_dir: dir.path().to_owned(),
        rng: Arc::new(SystemRng),
        away_limit,
        docker: DockerOptions { host: Some(docker_host()), image: "herm-sandbox:test".to_owned() },
        certificates: Certificates::default(),
        carry,
    };
    Sandboxes::new(options).unwrap()
}

impl Host {
    fn new(engine: SandboxType) -> Self {
        Self::with(engine, AWAY, no_way_out())
    }

    fn with(engine: SandboxType, away_limit: Duration, carry: Carry) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sandboxes = open(&dir, away_limit, carry);
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

    /// The server is gone, as after `kill -9`, and another has come: whatever held a guest is dropped.
    fn restarted(self) -> Self {
        let Self { engine, dir, sandboxes } = self;
        drop(sandboxes);
        let sandboxes = open(&dir, AWAY, no_way_out());
        Self { engine, dir, sandboxes }
    }

    /// The server is gone, and none comes.
    fn left(self) -> Left {
        let Self { engine, dir, .. } = self;
        Left { engine, dir }
    }

    fn alive(&self) -> usize {
        alive(self.engine, &self.dir)
    }

    fn containers(&self) -> Vec<String> {
        containers(&self.dir)
    }

    fn control_groups(&self) -> Vec<String> {
        control_groups(&instance(&self.dir))
    }

    /// Ends all sandboxes from outside, as the kernel might.
    fn kill_all(&self) {
        match self.engine {
            SandboxType::Local => processes(&self.dir).into_iter().for_each(kill_children),
            SandboxType::Docker | SandboxType::Gvisor => {
                let all = self.containers();
                docker(&["kill"], &all.iter().map(String::as_str).collect::<Vec<_>>());
            }
        }
    }

    /// What there is of sandboxes on the host, apart from what all share.
    fn traces(&self) -> Vec<String> {
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
/// What a server left behind.
struct Left {
    engine: SandboxType,
    dir: TempDir,
}

impl Left {
    fn alive(&self) -> usize {
        alive(self.engine, &self.dir)
    }
}

/// How many sandboxes there are.
fn alive(engine: SandboxType, dir: &TempDir) -> usize {
    match engine {
        SandboxType::Local => processes(dir).len(),
        SandboxType::Docker | SandboxType::Gvisor => containers(dir).len(),
    }
}

fn instance(dir: &TempDir) -> String {
    std::fs::read_to_string(dir.path().join("sandboxes/.shared/instance")).unwrap()
}

/// The local sandboxes of this server: each has one process outside.
fn processes(dir: &TempDir) -> Vec<u32> {
    processes_that_mention(Path::new(&format!("herm-sandbox:{}:", instance(dir))))
}

/// The containers of this server, running or not.
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

/// The control groups that sandboxes of this server have now; of a group that should have gone with the last of them,
/// itself.
fn control_groups(instance: &str) -> Vec<String> {
    let name = format!("herm-{instance}");
    let mut found = Vec::new();
    let mut look_in = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = look_in.pop() {
        let below = std::fs::read_dir(&dir).into_iter().flatten().flatten().map(|entry| entry.path());
        let below: Vec<PathBuf> = below.filter(|path| path.is_dir() && !path.is_symlink()).collect();
        match dir.file_name().is_some_and(|found| found == name.as_str()) {
            false => look_in.extend(below),
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
        timeout: LONG,
        output_limit_bytes: OUTPUT_BYTES,
    }
}

async fn run(sandbox: &Sandbox, command: &str) -> Outcome {
    // Each command has a name of its own: its text will do.
    let exec_id: String = command.bytes().take(60).map(|byte| format!("{byte:02x}")).collect();
    let outcome = sandbox.exec(shell(&exec_id, command)).await.unwrap();
    sandbox.acknowledge(&exec_id);
    outcome
}

/// What a command that succeeds says.
async fn said(sandbox: &Sandbox, command: &str) -> String {
    let outcome = run(sandbox, command).await;
    let (stdout, stderr) = (text(&outcome.stdout), text(&outcome.stderr));
    assert_eq!(outcome.exit, Exit::Code(0), "{command}: {stdout}{stderr}");
    stdout
}

/// Whether the command succeeds on the host.
fn succeeds_outside(command: &str) -> bool {
    Command::new("sh").args(["-c", command]).output().unwrap().status.success()
}

/// The command succeeds outside and not inside.
async fn fails_inside(sandbox: &Sandbox, command: &str) {
    assert!(succeeds_outside(command), "the control fails: {command}");
    let outcome = run(sandbox, command).await;
    assert_ne!(outcome.exit, Exit::Code(0), "{command}: {}", text(&outcome.stdout));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
