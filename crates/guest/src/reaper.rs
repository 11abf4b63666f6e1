//! Every child that ends is reaped here, commands and orphans alike: one place, so that nobody takes another's.

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

/// Starts reaping, on a thread of its own.
pub(crate) fn start() {
    *children() = Some(Children::new());
    std::thread::spawn(|| {
        loop {
            // Looked at, not taken: a child is taken under the lock, so that none is between its start and its
            // entry in the table.
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
            // Who waited may have given up.
            let _ = waiting.send(status);
        }
    }
}

/// Starts a command; its status comes through the receiver.
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
