//! Reaps every child process that exits: commands, and orphans, which PID 1 inherits. Only this module reaps children,
//! so that no thread takes the exit status of another thread's child.

use std::collections::HashMap;
use std::io;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, WaitOptions, WaitStatus, wait, waitid};

type Children = HashMap<i32, Sender<WaitStatus>>;

static CHILDREN: Mutex<Option<Children>> = Mutex::new(None);
static ADDED: Condvar = Condvar::new();

fn children() -> MutexGuard<'static, Option<Children>> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the thread that reaps children. Must be called before the first command is started.
pub(crate) fn start() {
    *children() = Some(Children::new());
    std::thread::spawn(|| {
        loop {
            // With NOWAIT, `waitid` only reports that a child has exited. `reap` collects the exit status while it
            // holds the lock on the table of children. `spawn` holds this lock until the new child is in the table, so
            // a command that exits immediately cannot be reaped before then.
            match waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
                Ok(_) => reap(),
                Err(Errno::CHILD) => {
                    let children = children();
                    if children.as_ref().is_some_and(HashMap::is_empty) {
                        drop(ADDED.wait(children));
                    }
                }
                Err(_) => {}
            }
        }
    });
}

fn reap() {
    let mut children = children();
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        let waiting = children.as_mut().and_then(|children| children.remove(&pid.as_raw_nonzero().get()));
        if let Some(waiting) = waiting {
            // This fails if no thread is waiting for the status any more.
            let _ = waiting.send(status);
        }
    }
}

/// Starts a command. The returned receiver delivers its exit status.
pub(crate) fn spawn(command: &mut Command) -> io::Result<(Child, Receiver<WaitStatus>)> {
    let mut children = children();
    let child = command.spawn()?;
    let (sender, receiver) = channel();
    if let (Some(children), Ok(pid)) = (children.as_mut(), i32::try_from(child.id())) {
        children.insert(pid, sender);
    }
    ADDED.notify_all();
    Ok((child, receiver))
}
