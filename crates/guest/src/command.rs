//! Runs the commands that the server sends. Each command is started only once and is killed together with its process
//! group. The guest remembers a command until the server acknowledges its result.

use std::collections::HashMap;
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read as _, Write as _, pipe};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use herm_guest::output::RetainedOutput;
use herm_guest::protocol::{Bytes, Exec, Exit, FromGuest, MAX_CHUNK_BYTES, MAX_OUTPUT_BYTES, Stream};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, WaitStatus, kill_process_group};

use crate::link::Link;
use crate::reaper;

/// The delay between SIGTERM, which a command receives at its timeout, and the SIGKILL that follows.
const TERM_GRACE_PERIOD: Duration = Duration::from_secs(2);
/// The maximum time to read further output after a command has exited. Output that arrives later, for example from a
/// background process that keeps the pipe open, is discarded.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(200);
/// The maximum number of chunks that are read from each output pipe after the drain timeout. A pipe cannot hold more.
const MAX_REMAINING_CHUNKS: usize = MAX_OUTPUT_BYTES / MAX_CHUNK_BYTES;
/// The maximum number of commands that the guest remembers. When it is reached, a new command replaces the oldest one
/// that has ended. If none has ended, the new command is rejected.
const MAX_REMEMBERED: usize = 128;
/// The stack size of each thread that serves a command, in bytes.
const STACK_BYTES: usize = 128 * 1024;

/// The commands that have been started and whose results have not been acknowledged yet. The key is the exec id.
#[derive(Clone)]
pub(crate) struct Commands {
    commands: Arc<Mutex<HashMap<String, Arc<TrackedCommand>>>>,
    link: Link,
}

/// A started command, with its output pipes and state.
struct TrackedCommand {
    exec_id: String,
    started_at: Instant,
    group: OnceLock<Pid>,
    /// The read end of the pipe for the command's standard output. It is non-blocking and is read only while `state` is
    /// locked. The same is true for `stderr`.
    stdout: PipeReader,
    stderr: PipeReader,
    state: Mutex<CommandState>,
}

struct CommandState {
    stdout: RetainedOutput,
    stderr: RetainedOutput,
    is_killed: bool,
    /// The `Exited` frame that reports the result. `None` while the command is running.
    end: Option<FromGuest>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Commands {
    pub(crate) fn new(link: Link) -> Self {
        Self { commands: Arc::default(), link }
    }

    /// Starts a command. If a command with the same id was already started, sends that command's output instead and, if
    /// it has ended, its result.
    pub(crate) fn exec(&self, exec: Exec) {
        let mut commands = lock(&self.commands);
        if commands.contains_key(&exec.exec_id) {
            drop(commands);
            return self.attach(&exec.exec_id);
        }
        let failed = |message: String| FromGuest::Failed { exec_id: exec.exec_id.clone(), message };
        if commands.len() >= MAX_REMEMBERED && !forget_oldest(&mut commands) {
            return self
                .link
                .send(&failed(format!("the sandbox already has {MAX_REMEMBERED} running commands")));
        }
        match start_command(&exec, &self.link) {
            Ok(command) => {
                commands.insert(exec.exec_id, command);
            }
            // The command is not remembered: it did not start, so the server may use its id again.
            Err(error) => self.link.send(&failed(error.to_string())),
        }
    }

    /// Sends a command's retained output. If the command has ended, also sends its result.
    pub(crate) fn attach(&self, exec_id: &str) {
        let command = lock(&self.commands).get(exec_id).cloned();
        let Some(command) = command else {
            return self.link.send(&FromGuest::Unknown { exec_id: exec_id.to_owned() });
        };
        // Hold the lock, so that no new output is sent between the retained output and the result.
        let state = lock(&command.state);
        for (stream, output) in [(Stream::Stdout, &state.stdout), (Stream::Stderr, &state.stderr)] {
            for (number, chunk) in output.head().chunks(MAX_CHUNK_BYTES).enumerate() {
                let offset = (number * MAX_CHUNK_BYTES) as u64;
                let (exec_id, data) = (exec_id.to_owned(), Bytes(chunk.to_vec()));
                self.link.send(&FromGuest::Output { exec_id, stream, offset, data });
            }
        }
        if let Some(end) = &state.end {
            self.link.send(end);
        }
    }

    pub(crate) fn kill(&self, exec_id: &str) {
        if let Some(command) = lock(&self.commands).get(exec_id) {
            let mut state = lock(&command.state);
            if state.end.is_none() {
                state.is_killed = true;
                command.signal(Signal::KILL);
            }
        }
    }

    /// Forgets a command if it has ended. Does nothing if it is still running.
    pub(crate) fn forget(&self, exec_id: &str) {
        let mut commands = lock(&self.commands);
        if commands.get(exec_id).is_some_and(|command| lock(&command.state).end.is_some()) {
            commands.remove(exec_id);
        }
    }
}

/// Forgets the oldest command that has ended. Returns `false` if all commands are still running.
fn forget_oldest(commands: &mut HashMap<String, Arc<TrackedCommand>>) -> bool {
    let ended = commands.iter().filter(|(_, command)| lock(&command.state).end.is_some());
    let oldest = ended.min_by_key(|(_, command)| command.started_at).map(|(exec_id, _)| exec_id.clone());
    oldest.is_some_and(|exec_id| commands.remove(&exec_id).is_some())
}

/// The outcome of a single read from a command's output pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadOutcome {
    /// Data was read, or a signal interrupted the read. The caller reads again.
    Read,
    /// The pipe is open but currently contains no data.
    WouldBlock,
    /// The pipe is closed or cannot be read. No data follows.
    Closed,
}

impl TrackedCommand {
    fn pipe(&self, stream: Stream) -> &PipeReader {
        if stream == Stream::Stdout { &self.stdout } else { &self.stderr }
    }

    /// Reads once from one of the command's output pipes, without blocking, and appends the data to the command's
    /// output. Only the beginning and the end of that output are retained; the beginning is also sent to the server
    /// immediately.
    fn read_output(
        &self,
        state: &mut CommandState,
        stream: Stream,
        buffer: &mut [u8],
        link: &Link,
    ) -> ReadOutcome {
        let count = match self.pipe(stream).read(buffer) {
            Ok(0) => return ReadOutcome::Closed,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return ReadOutcome::WouldBlock,
            Err(error) if error.kind() == ErrorKind::Interrupted => return ReadOutcome::Read,
            Err(_) => return ReadOutcome::Closed,
        };
        // Discard output that arrives after the result was sent. It must still be read: otherwise the pipe would fill
        // up and block a background process that writes to it.
        if state.end.is_none() {
            let output = if stream == Stream::Stdout { &mut state.stdout } else { &mut state.stderr };
            if let Some((offset, data)) = output.push(buffer.get(..count).unwrap_or_default()) {
                let (exec_id, data) = (self.exec_id.clone(), Bytes(data));
                link.send(&FromGuest::Output { exec_id, stream, offset, data });
            }
        }
        ReadOutcome::Read
    }

    /// Reads the output that is still in the pipes after the command has exited. On a busy machine, the reader threads
    /// may not have read it yet.
    fn read_remaining_output(&self, state: &mut CommandState, link: &Link) {
        let mut buffer = vec![0u8; MAX_CHUNK_BYTES];
        for stream in [Stream::Stdout, Stream::Stderr] {
            for _ in 0..MAX_REMAINING_CHUNKS {
                if self.read_output(state, stream, &mut buffer, link) != ReadOutcome::Read {
                    break;
                }
            }
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(&group) = self.group.get() {
            // This fails if the process group no longer exists. There is then nothing to signal.
            let _ = kill_process_group(group, signal);
        }
    }
}

/// Starts a command. The threads that read its output and wait for it are created first, so that a command never runs
/// without them. If the sandbox is at its process limit, creating the threads fails and the command is not started.
fn start_command(exec: &Exec, link: &Link) -> io::Result<Arc<TrackedCommand>> {
    let (program, arguments) =
        exec.argv.split_first().ok_or_else(|| io::Error::other("the command names no program to run"))?;
    let limit = exec.output_limit_bytes.min(MAX_OUTPUT_BYTES) / 2;
    let state = CommandState {
        stdout: RetainedOutput::new(limit),
        stderr: RetainedOutput::new(limit),
        is_killed: false,
        end: None,
    };
    let ((stdout_reader, stdout), (stderr_reader, stderr)) = (output_pipe()?, output_pipe()?);
    let command = Arc::new(TrackedCommand {
        exec_id: exec.exec_id.clone(),
        started_at: Instant::now(),
        group: OnceLock::new(),
        stdout: stdout_reader,
        stderr: stderr_reader,
        state: Mutex::new(state),
    });
    let (done, drained) = channel();
    spawn_output_reader(&command, Stream::Stdout, link, done.clone())?;
    spawn_output_reader(&command, Stream::Stderr, link, done)?;
    let stdin = if exec.stdin.0.is_empty() {
        Stdio::null()
    } else {
        spawn_stdin_writer(exec.stdin.0.clone())?.into()
    };
    let timeout = Duration::from_millis(exec.timeout_ms);
    let started = spawn_waiter(&command, timeout, drained, link)?;
    let mut program = Command::new(program);
    program
        .args(arguments)
        .envs(exec.env.iter().map(|(name, value)| (name, value)))
        .current_dir(&exec.cwd)
        .process_group(0)
        .stdin(stdin)
        .stdout(stdout)
        .stderr(stderr);
    let (child, status) = reaper::spawn(&mut program)?;
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // Cannot fail: the process group is not set anywhere else.
        let _ = command.group.set(group);
    }
    // Cannot fail: the waiter thread keeps its receiver until it has received this message.
    let _ = started.send(status);
    Ok(command)
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().stack_size(STACK_BYTES).spawn(work).map(drop)
}

/// Spawns the thread that waits for a command to exit and reports its result. The thread first waits for the channel
/// that will deliver the exit status. Once the command has started, the caller passes this channel to the thread
/// through the returned sender.
fn spawn_waiter(
    command: &Arc<TrackedCommand>,
    timeout: Duration,
    drained: Receiver<()>,
    link: &Link,
) -> io::Result<Sender<Receiver<WaitStatus>>> {
    let (started, start) = channel::<Receiver<WaitStatus>>();
    let (command, link) = (Arc::clone(command), link.clone());
    spawn(move || {
        // If the command could not be started, the sender was dropped. The thread then exits.
        let Ok(status) = start.recv() else { return };
        let started_at = Instant::now();
        let exit = wait_for_exit(&command, &status, timeout);
        let until = Instant::now() + DRAIN_TIMEOUT;
        // This loop ends when both output readers have finished or the drain timeout has expired.
        while drained.recv_timeout(until.saturating_duration_since(Instant::now())).is_ok() {}
        let duration_ms = u64::try_from(started_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut state = lock(&command.state);
        command.read_remaining_output(&mut state, &link);
        let exit = if state.is_killed { Exit::Killed } else { exit };
        let (stdout, stderr) = (state.stdout.tail(), state.stderr.tail());
        let exec_id = command.exec_id.clone();
        let end = FromGuest::Exited { exec_id, exit, stdout, stderr, duration_ms };
        link.send(&end);
        state.end = Some(end);
    })?;
    Ok(started)
}

/// Spawns a thread that writes a command's standard input to a pipe. Returns the read end of the pipe.
fn spawn_stdin_writer(bytes: Vec<u8>) -> io::Result<PipeReader> {
    let (input, mut sink) = pipe()?;
    spawn(move || {
        // This fails if the command exits without reading all of its input, which is allowed.
        let _ = sink.write_all(&bytes);
    })?;
    Ok(input)
}

/// Creates a pipe for a command's standard output or standard error. The read end is non-blocking.
fn output_pipe() -> io::Result<(PipeReader, PipeWriter)> {
    let (source, output) = pipe()?;
    fcntl_setfl(&source, fcntl_getfl(&source)? | OFlags::NONBLOCK)?;
    Ok((source, output))
}

/// Spawns the thread that reads a command's standard output or standard error until the pipe is closed.
fn spawn_output_reader(
    command: &Arc<TrackedCommand>,
    stream: Stream,
    link: &Link,
    done: Sender<()>,
) -> io::Result<()> {
    let (command, link) = (Arc::clone(command), link.clone());
    spawn(move || {
        let mut buffer = vec![0u8; MAX_CHUNK_BYTES];
        loop {
            let mut poll_fds = [PollFd::new(command.pipe(stream), PollFlags::IN)];
            // Ignore an interrupted `poll`: the read below then finds no data, and the loop polls again.
            let _ = poll(&mut poll_fds, None);
            let outcome = command.read_output(&mut lock(&command.state), stream, &mut buffer, &link);
            if outcome == ReadOutcome::Closed {
                break;
            }
        }
        let _ = done.send(());
    })
}

fn wait_for_exit(command: &TrackedCommand, status: &Receiver<WaitStatus>, timeout: Duration) -> Exit {
    match status.recv_timeout(timeout) {
        Ok(status) => exit_of(status),
        Err(RecvTimeoutError::Disconnected) => Exit::Killed,
        Err(RecvTimeoutError::Timeout) => {
            command.signal(Signal::TERM);
            let _ = status.recv_timeout(TERM_GRACE_PERIOD);
            // Send SIGKILL even if the command has exited after SIGTERM: other processes of its process group may still
            // be running.
            command.signal(Signal::KILL);
            Exit::TimedOut
        }
    }
}

fn exit_of(status: WaitStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Killed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Simulates a busy machine on which the reader threads have not run yet when the command exits.
    #[test]
    fn output_left_in_open_pipes_is_retained() {
        let ((stdout_reader, mut stdout), (stderr_reader, mut stderr)) =
            (output_pipe().unwrap(), output_pipe().unwrap());
        let output = || RetainedOutput::new(MAX_OUTPUT_BYTES);
        let state = CommandState { stdout: output(), stderr: output(), is_killed: false, end: None };
        let command = TrackedCommand {
            exec_id: "slow".to_owned(),
            started_at: Instant::now(),
            group: OnceLock::new(),
            stdout: stdout_reader,
            stderr: stderr_reader,
            state: Mutex::new(state),
        };
        let full = vec![b'x'; MAX_CHUNK_BYTES];
        stdout.write_all(&full).unwrap();
        stderr.write_all(b"last line").unwrap();
        let mut state = lock(&command.state);
        command.read_remaining_output(&mut state, &Link::default());
        assert_eq!((state.stdout.head(), state.stderr.head()), (full.as_slice(), &b"last line"[..]));
    }
}
