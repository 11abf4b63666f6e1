//! Runs the real `herm` binary as a child process that a test can start, kill and restart.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinHandle;

/// The prefix of the line that a server prints to its standard output when it accepts requests. The base URL follows.
const READY: &str = "listening on ";

/// A description of a `herm` process to start. The process receives `PATH` and the environment variables set here, and
/// no others.
#[derive(Clone, Debug)]
pub struct Launch {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    current_dir: PathBuf,
}

/// The exit status and output of a process that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Launch {
    /// Describes a process that executes `program` in the directory `current_dir`, in which `herm` looks for
    /// `herm.toml`.
    pub fn new(program: impl Into<PathBuf>, current_dir: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            current_dir: current_dir.into(),
        }
    }

    /// Describes a process that executes the `herm` binary: the one at the path in the environment variable
    /// `HERM_BINARY`, or else the one that `cargo build` has put into the target directory of the running test.
    ///
    /// # Panics
    /// Panics if `HERM_BINARY` is not set and the binary is not built.
    pub fn of_workspace(current_dir: impl Into<PathBuf>) -> Self {
        if let Some(named) = std::env::var_os("HERM_BINARY") {
            return Self::new(named, current_dir);
        }
        #[expect(clippy::expect_used, reason = "a test without the binary must fail here")]
        let test = std::env::current_exe().expect("failed to determine the path of the test binary");
        let beside = test.ancestors().skip(1).map(|dir| dir.join("herm")).find(|program| program.is_file());
        #[expect(clippy::expect_used, reason = "a test without the binary must fail here")]
        let program = beside.expect("the binary `herm` is not built: run the tests with `make test`");
        Self::new(program, current_dir)
    }

    /// Returns the path of the program.
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

    /// Sets an environment variable of the process.
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

    /// Runs the program and waits until it exits.
    pub async fn run(&self) -> io::Result<Finished> {
        let output = self.command().output().await?;
        Ok(Finished {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Starts the program as a server and waits until it accepts requests. If the program exits before that, returns
    /// its exit status and output.
    pub async fn serve(&self) -> io::Result<Result<Server, Finished>> {
        let mut child = self.command().spawn()?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(io::Error::other("the server process has no pipes for its output"));
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
        // The process has exited, so the task that collects its log ends soon. A panic of that task is ignored.
        let _ = logging.await;
        Ok(Err(Finished { status, stdout: said, stderr: log.text() }))
    }
}

/// The standard error output of a process, collected while the process runs. Clones share the text.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<String>>);

impl Log {
    fn lock(&self) -> MutexGuard<'_, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns everything that the process has written so far.
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

/// A running server process. Dropping it kills the process.
#[derive(Debug)]
pub struct Server {
    child: Child,
    base_url: String,
    log: Log,
    logging: JoinHandle<()>,
    /// Kept open, because the server's writes to its standard output would fail if the pipe were closed.
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Server {
    /// Returns the server's base URL, `http://127.0.0.1:PORT`.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Returns everything that the server has logged so far.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Returns a handle to the log. Later log lines appear in it too, and it outlives the server.
    pub fn log_handle(&self) -> Log {
        self.log.clone()
    }

    /// Returns the process id, or `None` if the process has exited.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Kills the process with SIGKILL and waits until it has exited.
    pub async fn kill(mut self) -> io::Result<ExitStatus> {
        self.child.kill().await?;
        self.wait().await.map(|finished| finished.status)
    }

    /// Sends SIGTERM to the process, without waiting for its exit.
    pub fn terminate(&self) -> io::Result<()> {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("the server process has already exited"))?;
        Ok(kill_process(pid, Signal::TERM)?)
    }

    /// Waits until the process has exited. The returned `stdout` is empty.
    pub async fn wait(mut self) -> io::Result<Finished> {
        let status = self.child.wait().await?;
        // The process has exited, so the task that collects its log ends soon. A panic of that task is ignored.
        let _ = self.logging.await;
        Ok(Finished { status, stdout: String::new(), stderr: self.log.text() })
    }

    /// Returns true if the process has exited.
    pub fn has_ended(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }
}

/// Polls until `is_so` returns true, for conditions outside this process. There is no timeout here, because the test
/// runner has one.
pub async fn wait_until(is_so: impl Fn() -> bool) {
    const LOOK_EVERY: Duration = Duration::from_millis(5);
    while !is_so() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Returns the ids of all other processes whose command line contains `path`, for example the bubblewrap processes of a
/// test's sandboxes.
pub fn processes_that_mention(path: &Path) -> Vec<u32> {
    let wanted = path.to_string_lossy().into_owned();
    let is_it = |id: &u32| read_of_process(*id, "cmdline").contains(&wanted);
    process_ids().into_iter().filter(|id| *id != std::process::id()).filter(is_it).collect()
}

/// Kills all child processes of `parent` with SIGKILL.
pub fn kill_children(parent: u32) {
    // In `/proc/PID/stat`, the process name is in parentheses and may itself contain any character, even `)`. The state
    // and the parent's process id follow the last `)`.
    let parent_of = |id: u32| {
        let stat = read_of_process(id, "stat");
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()
    };
    let children = process_ids().into_iter().filter(|id| parent_of(*id) == Some(parent));
    for pid in children.filter_map(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
        // The signal cannot be sent if the process has already exited.
        let _ = kill_process(pid, Signal::KILL);
    }
}

fn process_ids() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn read_of_process(id: u32, file: &str) -> String {
    // The file does not exist any more if the process has exited.
    std::fs::read_to_string(format!("/proc/{id}/{file}")).unwrap_or_default()
}
