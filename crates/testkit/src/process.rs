//! The real binary as a process of its own: started, killed, started again.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinHandle;

/// The beginning of the line that a server prints when it takes requests.
const READY: &str = "listening on ";

/// How a process of `herm` is started. Its environment is what is said here, and `PATH`.
#[derive(Clone, Debug)]
pub struct Launch {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    current_dir: PathBuf,
}

/// How a process ended, and what it wrote.
#[derive(Clone, Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Launch {
    /// Starts `program` in `current_dir`, where a `herm.toml` would be read.
    pub fn new(program: impl Into<PathBuf>, current_dir: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            current_dir: current_dir.into(),
        }
    }

    /// The binary `herm` beside the test that runs, as `cargo build` puts it there; or the one that `HERM_BINARY` names.
    ///
    /// # Panics
    /// If there is none.
    pub fn of_workspace(current_dir: impl Into<PathBuf>) -> Self {
        if let Some(named) = std::env::var_os("HERM_BINARY") {
            return Self::new(named, current_dir);
        }
        #[expect(clippy::expect_used, reason = "a test without the binary must fail here")]
        let test = std::env::current_exe().expect("failed to find the test's own binary");
        let beside = test.ancestors().skip(1).map(|dir| dir.join("herm")).find(|program| program.is_file());
        #[expect(clippy::expect_used, reason = "as above")]
        let program = beside.expect("the binary herm is not built: run the tests by `make test`");
        Self::new(program, current_dir)
    }

    /// What is started.
    pub fn program(&self) -> &Path {
        &self.program
    }

    #[must_use]
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    #[must_use]
    pub fn arguments(self, arguments: &[&str]) -> Self {
        arguments.iter().fold(self, |launch, argument| launch.argument(*argument))
    }

    /// Sets a variable, or replaces it.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.retain(|(set, _)| set != name);
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.current_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs it to its end.
    pub async fn run(&self) -> io::Result<Finished> {
        let output = self.command().output().await?;
        Ok(Finished {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Starts it as a server, and waits until it takes requests; or gives what it said instead.
    pub async fn serve(&self) -> io::Result<Result<Server, Finished>> {
        let mut child = self.command().spawn()?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(io::Error::other("a started process has no pipes"));
        };
        let log = Log::default();
        let logging = tokio::spawn(gather(BufReader::new(stderr).lines(), log.clone()));
        let mut lines = BufReader::new(stdout).lines();
        let mut said = String::new();
        while let Some(line) = lines.next_line().await? {
            if let Some(base_url) = line.strip_prefix(READY) {
                let base_url = base_url.to_owned();
                return Ok(Ok(Server { child, base_url, log, logging, _stdout: lines }));
            }
            said.push_str(&line);
            said.push('\n');
        }
        let status = child.wait().await?;
        // It ends with the process.
        let _ = logging.await;
        Ok(Err(Finished { status, stdout: said, stderr: log.text() }))
    }
}

/// What a process writes to its standard error.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<String>>);

impl Log {
    fn lock(&self) -> MutexGuard<'_, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of it so far.
    pub fn text(&self) -> String {
        self.lock().clone()
    }
}

async fn gather(mut lines: Lines<BufReader<impl AsyncRead + Unpin>>, log: Log) {
    while let Ok(Some(line)) = lines.next_line().await {
        let mut text = log.lock();
        text.push_str(&line);
        text.push('\n');
    }
}

/// A server that takes requests. Dropped, it is killed.
#[derive(Debug)]
pub struct Server {
    child: Child,
    base_url: String,
    log: Log,
    logging: JoinHandle<()>,
    /// Kept open: a server may write to it.
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Server {
    /// `http://127.0.0.1:PORT`.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Where all is gathered that it logs, now and later.
    pub fn gathered(&self) -> Log {
        self.log.clone()
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Ends it as `kill -9` does.
    pub async fn kill(mut self) -> io::Result<ExitStatus> {
        self.child.kill().await?;
        self.wait().await.map(|finished| finished.status)
    }

    /// Asks it to end, as `kill` does.
    pub fn terminate(&self) -> io::Result<()> {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("the server has ended already"))?;
        Ok(kill_process(pid, Signal::TERM)?)
    }

    /// Waits until it has ended, by whatever.
    pub async fn wait(mut self) -> io::Result<Finished> {
        let status = self.child.wait().await?;
        // It ends with the process.
        let _ = self.logging.await;
        Ok(Finished { status, stdout: String::new(), stderr: self.log.text() })
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }
}

/// Waits until something outside this process is so, however long that takes: a test that waits in vain is ended by
/// its runner.
pub async fn wait_until(is_so: impl Fn() -> bool) {
    const LOOK_EVERY: Duration = Duration::from_millis(5);
    while !is_so() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The process ids whose command line mentions `path`: bubblewrap's, outside of a sandbox, for one.
pub fn processes_that_mention(path: &Path) -> Vec<u32> {
    let wanted = path.to_string_lossy().into_owned();
    let is_it = |id: &u32| read_of_process(*id, "cmdline").contains(&wanted);
    process_ids().into_iter().filter(|id| *id != std::process::id()).filter(is_it).collect()
}

/// Ends the processes whose parent this is, as `kill -9` does.
pub fn kill_children(parent: u32) {
    // After the name, which may hold anything: state, then the parent's id.
    let parent_of = |id: u32| {
        let stat = read_of_process(id, "stat");
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()
    };
    let children = process_ids().into_iter().filter(|id| parent_of(*id) == Some(parent));
    for pid in children.filter_map(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
        // One that has ended meanwhile is as dead as it was to be.
        let _ = kill_process(pid, Signal::KILL);
    }
}

fn process_ids() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn read_of_process(id: u32, file: &str) -> String {
    // A process that has ended says nothing.
    std::fs::read_to_string(format!("/proc/{id}/{file}")).unwrap_or_default()
}
