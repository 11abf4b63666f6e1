//! Sandboxes of bubblewrap, real ones: what a command gets, what it cannot get at, and how a sandbox lives and ends.

mod commands;
mod isolation;
mod life;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use herm_sandbox::local::{AWAY_LIMIT, Exec, Exit, LocalSandbox, Options, Outcome, Sandboxes, Spec};
use herm_types::time::SystemRng;
use tempfile::TempDir;

/// Longer than any command here takes, unless it is to be stopped.
const LONG: Duration = Duration::from_secs(120);
const OUTPUT_BYTES: usize = 64 * 1024;

/// A server's sandboxes in a directory of their own.
struct Host {
    dir: TempDir,
    sandboxes: Sandboxes,
}

fn open(dir: &TempDir, away_limit: Duration) -> Sandboxes {
    let options = Options { data_dir: dir.path().to_owned(), rng: Arc::new(SystemRng), away_limit };
    Sandboxes::new(options).unwrap()
}

impl Host {
    fn new() -> Self {
        Self::with_away_limit(AWAY_LIMIT)
    }

    fn with_away_limit(away_limit: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sandboxes = open(&dir, away_limit);
        Self { dir, sandboxes }
    }

    fn workspace(&self, name: &str) -> PathBuf {
        self.dir.path().join("workspaces").join(name)
    }

    fn spec(&self, name: &str) -> Spec {
        Spec {
            sandbox_id: name.to_owned(),
            workspace_dir: self.workspace(name),
            env: vec![("GREETING".to_owned(), "hello".to_owned())],
        }
    }

    async fn sandbox(&self, name: &str) -> LocalSandbox {
        self.sandboxes.ensure(self.spec(name)).await.unwrap()
    }

    /// The server is gone, as after `kill -9`, and another has come: whatever held a guest is dropped.
    fn restarted(self) -> Self {
        let Self { dir, sandboxes } = self;
        drop(sandboxes);
        let sandboxes = open(&dir, AWAY_LIMIT);
        Self { dir, sandboxes }
    }

    async fn stop(self) {
        self.sandboxes.stop_all().await;
    }
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

async fn run(sandbox: &LocalSandbox, command: &str) -> Outcome {
    // Each command has a name of its own: its text will do.
    let exec_id: String = command.bytes().take(60).map(|byte| format!("{byte:02x}")).collect();
    let outcome = sandbox.exec(shell(&exec_id, command)).await.unwrap();
    sandbox.acknowledge(&exec_id);
    outcome
}

/// What a command that succeeds says.
async fn said(sandbox: &LocalSandbox, command: &str) -> String {
    let outcome = run(sandbox, command).await;
    let (stdout, stderr) = (text(&outcome.stdout), text(&outcome.stderr));
    assert_eq!(outcome.exit, Exit::Code(0), "{command}: {stdout}{stderr}");
    stdout
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
