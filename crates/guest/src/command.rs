//! Commands: begun once each, ended with their whole process group, remembered until they are acknowledged.

use std::collections::HashMap;
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read as _, Write as _, pipe};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use herm_guest::output::Kept;
use herm_guest::protocol::{Bytes, Exec, Exit, FromGuest, MAX_CHUNK_BYTES, MAX_OUTPUT_BYTES, Stream};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, WaitStatus, kill_process_group};

use crate::link::Link;
use crate::reaper;

/// After a polite end at the time limit, before the impolite one.
const GRACE: Duration = Duration::from_secs(2);
/// How long further output is awaited after a command's end: something in the background may hold it open.
const DRAIN: Duration = Duration::from_millis(200);
/// Pieces that are read then of what is there already: a pipe holds no more.
const MAX_LAST_CHUNKS: usize = MAX_OUTPUT_BYTES / MAX_CHUNK_BYTES;
/// Commands that are remembered at most. Beyond it the oldest that has ended is forgotten, and while none has a new
/// one is refused.
const MAX_REMEMBERED: usize = 128;
/// The stack of a thread that follows a command.
const STACK_BYTES: usize = 128 * 1024;

/// The commands that are not acknowledged yet, by their ids.
#[derive(Clone)]
pub(crate) struct Commands {
    known: Arc<Mutex<HashMap<String, Arc<Known>>>>,
    link: Link,
}

/// A command that was begun.
struct Known {
    exec_id: String,
    began: Instant,
    group: OnceLock<Pid>,
    /// The pipes that it writes its output to. They are read under the lock of the state, and without waiting.
    stdout: PipeReader,
    stderr: PipeReader,
    state: Mutex<State>,
}

struct State {
    stdout: Kept,
    stderr: Kept,
    is_killed: bool,
    /// The last frame about it, once it has ended.
    end: Option<FromGuest>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Commands {
    pub(crate) fn new(link: Link) -> Self {
        Self { known: Arc::default(), link }
    }

    /// Begins a command, or attaches to it if it was begun already.
    pub(crate) fn exec(&self, exec: Exec) {
        let mut known = lock(&self.known);
        if known.contains_key(&exec.exec_id) {
            drop(known);
            return self.attach(&exec.exec_id);
        }
        let failed = |message: String| FromGuest::Failed { exec_id: exec.exec_id.clone(), message };
        if known.len() >= MAX_REMEMBERED && !forget_oldest(&mut known) {
            return self.link.send(&failed(format!("{MAX_REMEMBERED} commands are running already")));
        }
        match begin(&exec, &self.link) {
            Ok(command) => {
                known.insert(exec.exec_id, command);
            }
            // It never began, so it may be tried again under its id.
            Err(error) => self.link.send(&failed(error.to_string())),
        }
    }

    /// Tells what is known of a command.
    pub(crate) fn attach(&self, exec_id: &str) {
        let command = lock(&self.known).get(exec_id).cloned();
        let Some(command) = command else {
            return self.link.send(&FromGuest::Unknown { exec_id: exec_id.to_owned() });
        };
        // Under the lock, so that nothing new is sent in between.
        let state = lock(&command.state);
        for (stream, kept) in [(Stream::Stdout, &state.stdout), (Stream::Stderr, &state.stderr)] {
            for (number, chunk) in kept.head().chunks(MAX_CHUNK_BYTES).enumerate() {
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
        if let Some(command) = lock(&self.known).get(exec_id) {
            let mut state = lock(&command.state);
            if state.end.is_none() {
                state.is_killed = true;
                command.signal(Signal::KILL);
            }
        }
    }

    /// Forgets a command that has ended; one that runs is not forgotten.
    pub(crate) fn forget(&self, exec_id: &str) {
        let mut known = lock(&self.known);
        if known.get(exec_id).is_some_and(|command| lock(&command.state).end.is_some()) {
            known.remove(exec_id);
        }
    }
}

/// Forgets the oldest command that has ended; `false` if none has.
fn forget_oldest(known: &mut HashMap<String, Arc<Known>>) -> bool {
    let ended = known.iter().filter(|(_, command)| lock(&command.state).end.is_some());
    let oldest = ended.min_by_key(|(_, command)| command.began).map(|(exec_id, _)| exec_id.clone());
    oldest.is_some_and(|exec_id| known.remove(&exec_id).is_some())
}

/// What reading a command's output once came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    Some,
    /// There is nothing now.
    Nothing,
    /// There will be nothing any more.
    End,
}

impl Known {
    fn pipe(&self, stream: Stream) -> &PipeReader {
        if stream == Stream::Stdout { &self.stdout } else { &self.stderr }
    }

    /// Reads once what is in the pipe.
    fn take(&self, state: &mut State, stream: Stream, buffer: &mut [u8], link: &Link) -> Taken {
        let count = match self.pipe(stream).read(buffer) {
            Ok(0) => return Taken::End,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Taken::Nothing,
            Err(error) if error.kind() == ErrorKind::Interrupted => return Taken::Some,
            Err(_) => return Taken::End,
        };
        // What comes after the command's end belongs to nobody; it is read so that its writer goes on.
        if state.end.is_none() {
            let kept = if stream == Stream::Stdout { &mut state.stdout } else { &mut state.stderr };
            if let Some((offset, data)) = kept.push(buffer.get(..count).unwrap_or_default()) {
                let (exec_id, data) = (self.exec_id.clone(), Bytes(data));
                link.send(&FromGuest::Output { exec_id, stream, offset, data });
            }
        }
        Taken::Some
    }

    /// Reads what the command has left in its pipes, however far the threads that read them have come.
    fn take_rest(&self, state: &mut State, link: &Link) {
        let mut buffer = vec![0u8; MAX_CHUNK_BYTES];
        for stream in [Stream::Stdout, Stream::Stderr] {
            for _ in 0..MAX_LAST_CHUNKS {
                if self.take(state, stream, &mut buffer, link) != Taken::Some {
                    break;
                }
            }
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(&group) = self.group.get() {
            // A group that is gone already is what was wanted.
            let _ = kill_process_group(group, signal);
        }
    }
}

/// Begins a command. The threads that follow it are there before it is: a sandbox that is full of processes refuses
/// the command, and loses none that has begun.
fn begin(exec: &Exec, link: &Link) -> io::Result<Arc<Known>> {
    let (program, arguments) =
        exec.argv.split_first().ok_or_else(|| io::Error::other("the command is empty"))?;
    let limit = exec.output_limit_bytes.min(MAX_OUTPUT_BYTES) / 2;
    let state = State { stdout: Kept::new(limit), stderr: Kept::new(limit), is_killed: false, end: None };
    let ((out_pipe, stdout), (err_pipe, stderr)) = (output_pipe()?, output_pipe()?);
    let command = Arc::new(Known {
        exec_id: exec.exec_id.clone(),
        began: Instant::now(),
        group: OnceLock::new(),
        stdout: out_pipe,
        stderr: err_pipe,
        state: Mutex::new(state),
    });
    let (done, drained) = channel();
    read(&command, Stream::Stdout, link, done.clone())?;
    read(&command, Stream::Stderr, link, done)?;
    let stdin = if exec.stdin.0.is_empty() { Stdio::null() } else { feed(exec.stdin.0.clone())?.into() };
    let limit = Duration::from_millis(exec.timeout_ms);
    let started = follow(&command, limit, drained, link)?;
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
        // It is set once, here.
        let _ = command.group.set(group);
    }
    // The thread waits for it.
    let _ = started.send(status);
    Ok(command)
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().stack_size(STACK_BYTES).spawn(work).map(drop)
}

/// Follows a command to its end, from when it is told of its start.
fn follow(
    command: &Arc<Known>,
    limit: Duration,
    drained: Receiver<()>,
    link: &Link,
) -> io::Result<Sender<Receiver<WaitStatus>>> {
    let (started, start) = channel::<Receiver<WaitStatus>>();
    let (command, link) = (Arc::clone(command), link.clone());
    spawn(move || {
        // It may never begin.
        let Ok(status) = start.recv() else { return };
        let began = Instant::now();
        let exit = wait(&command, &status, limit);
        let until = Instant::now() + DRAIN;
        // Ends when both readers are done, or when something in the background holds the output open.
        while drained.recv_timeout(until.saturating_duration_since(Instant::now())).is_ok() {}
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut state = lock(&command.state);
        command.take_rest(&mut state, &link);
        let exit = if state.is_killed { Exit::Killed } else { exit };
        let (stdout, stderr) = (state.stdout.rest(), state.stderr.rest());
        let exec_id = command.exec_id.clone();
        let end = FromGuest::Exited { exec_id, exit, stdout, stderr, duration_ms };
        link.send(&end);
        state.end = Some(end);
    })?;
    Ok(started)
}

/// Gives the end of a pipe that a command reads its input from.
fn feed(bytes: Vec<u8>) -> io::Result<PipeReader> {
    let (input, mut sink) = pipe()?;
    spawn(move || {
        // A command need not read its input.
        let _ = sink.write_all(&bytes);
    })?;
    Ok(input)
}

/// A pipe for a command's output, whose reading end gives what is there and never waits.
fn output_pipe() -> io::Result<(PipeReader, PipeWriter)> {
    let (source, output) = pipe()?;
    fcntl_setfl(&source, fcntl_getfl(&source)? | OFlags::NONBLOCK)?;
    Ok((source, output))
}

/// Reads one of a command's output streams as it comes, on a thread of its own, until nobody holds it open.
fn read(command: &Arc<Known>, stream: Stream, link: &Link, done: Sender<()>) -> io::Result<()> {
    let (command, link) = (Arc::clone(command), link.clone());
    spawn(move || {
        let mut buffer = vec![0u8; MAX_CHUNK_BYTES];
        loop {
            let mut awaited = [PollFd::new(command.pipe(stream), PollFlags::IN)];
            // One that was interrupted is made again, as there is nothing to be read then.
            let _ = poll(&mut awaited, None);
            if command.take(&mut lock(&command.state), stream, &mut buffer, &link) == Taken::End {
                break;
            }
        }
        let _ = done.send(());
    })
}

fn wait(command: &Known, status: &Receiver<WaitStatus>, limit: Duration) -> Exit {
    match status.recv_timeout(limit) {
        Ok(status) => exit_of(status),
        Err(RecvTimeoutError::Disconnected) => Exit::Killed,
        Err(RecvTimeoutError::Timeout) => {
            command.signal(Signal::TERM);
            let _ = status.recv_timeout(GRACE);
            // Also what the command left behind in its group.
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

    /// As it is where the threads that read were not given the processor since the command began.
    #[test]
    fn what_a_command_has_left_in_its_pipes_is_its_output_whoever_holds_them_open() {
        let ((out_pipe, mut stdout), (err_pipe, mut stderr)) =
            (output_pipe().unwrap(), output_pipe().unwrap());
        let kept = || Kept::new(MAX_OUTPUT_BYTES);
        let state = State { stdout: kept(), stderr: kept(), is_killed: false, end: None };
        let command = Known {
            exec_id: "slow".to_owned(),
            began: Instant::now(),
            group: OnceLock::new(),
            stdout: out_pipe,
            stderr: err_pipe,
            state: Mutex::new(state),
        };
        let full = vec![b'x'; MAX_CHUNK_BYTES];
        stdout.write_all(&full).unwrap();
        stderr.write_all(b"last words").unwrap();
        let mut state = lock(&command.state);
        command.take_rest(&mut state, &Link::default());
        assert_eq!((state.stdout.head(), state.stderr.head()), (full.as_slice(), &b"last words"[..]));
    }
}
