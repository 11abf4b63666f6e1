//! One running sandbox.

use std::sync::Arc;

use herm_guest::protocol::{self, Bytes, FromServer};

use crate::connection::Held;
use crate::spec::{Error, Exec, Outcome};

/// A handle to a running sandbox; cheap to clone.
#[derive(Clone)]
pub struct Sandbox {
    pub(crate) guest: Arc<Held>,
}

impl Sandbox {
    /// Runs a command to its end, or attaches to it if it was begun before under the same name. The guest keeps the
    /// result until it is acknowledged.
    pub async fn exec(&self, exec: Exec) -> Result<Outcome, Error> {
        let stdin = exec.stdin;
        if stdin.len() > protocol::MAX_STDIN_BYTES {
            let message = format!("standard input is larger than {} bytes", protocol::MAX_STDIN_BYTES);
            return Err(Error::NotBegun(message));
        }
        let exec_id = exec.exec_id;
        let frame = FromServer::Exec(protocol::Exec {
            exec_id: exec_id.clone(),
            argv: exec.argv,
            env: exec.env,
            cwd: exec.cwd,
            stdin: Bytes(stdin),
            timeout_ms: u64::try_from(exec.timeout.as_millis()).unwrap_or(u64::MAX),
            output_limit_bytes: exec.output_limit_bytes,
        });
        if protocol::encode(&frame).is_err() {
            let message = format!("the command is larger than {} bytes", protocol::MAX_FRAME_BYTES);
            return Err(Error::NotBegun(message));
        }
        self.guest.ask(&exec_id, frame).await?.ok_or(Error::Died)
    }

    /// The outcome of a command that was begun before, waiting for its end; `None` if the guest does not know it.
    pub async fn attach(&self, exec_id: &str) -> Result<Option<Outcome>, Error> {
        self.guest.ask(exec_id, FromServer::Attach { exec_id: exec_id.to_owned() }).await
    }

    /// Lets the guest forget a command whose outcome is recorded.
    pub fn acknowledge(&self, exec_id: &str) {
        self.guest.tell(FromServer::Ack { exec_id: exec_id.to_owned() });
    }

    /// Ends a command with its whole process group.
    pub fn kill(&self, exec_id: &str) {
        self.guest.kill_command(exec_id);
    }
}
