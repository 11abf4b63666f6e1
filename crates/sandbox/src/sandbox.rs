//! A handle to a running sandbox, through which commands are run.

use std::sync::Arc;

use herm_guest::protocol::{self, Bytes, FromServer};

use crate::connection::GuestHandle;
use crate::spec::{Error, Exec, Outcome};

/// A handle to a running sandbox; cheap to clone.
#[derive(Clone)]
pub struct Sandbox {
    pub(crate) guest: Arc<GuestHandle>,
}

impl Sandbox {
    /// Runs a command and returns its outcome. If a command with the same id was already started, waits for that
    /// command instead. The guest retains the outcome until [`Self::acknowledge`] is called.
    pub async fn exec(&self, exec: Exec) -> Result<Outcome, Error> {
        let stdin = exec.stdin;
        if stdin.len() > protocol::MAX_STDIN_BYTES {
            let message = format!("standard input exceeds {} bytes", protocol::MAX_STDIN_BYTES);
            return Err(Error::CommandNotStarted(message));
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
            let message = format!(
                "the encoded command, with its environment and standard input, exceeds {} bytes",
                protocol::MAX_FRAME_BYTES
            );
            return Err(Error::CommandNotStarted(message));
        }
        self.guest.request(&exec_id, frame).await?.ok_or(Error::Died)
    }

    /// Waits until a previously started command has ended, and returns its outcome. Returns `None` if the guest does
    /// not know the command.
    pub async fn attach(&self, exec_id: &str) -> Result<Option<Outcome>, Error> {
        self.guest.request(exec_id, FromServer::Attach { exec_id: exec_id.to_owned() }).await
    }

    /// Tells the guest that the command's outcome has been stored. The guest then forgets the command.
    pub fn acknowledge(&self, exec_id: &str) {
        self.guest.send(FromServer::Ack { exec_id: exec_id.to_owned() });
    }

    /// Kills a command and its process group. Returns without waiting for the command to end.
    pub fn kill(&self, exec_id: &str) {
        self.guest.kill_command(exec_id);
    }
}
