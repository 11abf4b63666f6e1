//! `shell`: a command in the deployment's sandbox.

use std::time::Duration;

use herm_agent::tools::{DEFAULT_TIMEOUT_S, MAX_TIMEOUT_S, Shell};
use herm_sandbox::{Error, Exec, Exit};
use herm_types::model::ToolOutcome;

use super::{Attempt, Place, unknown};
use crate::keeper::{MIB, Ran, Wanted};
use crate::worker::Context;

/// Bytes of output that are kept of one command: its beginning and its end.
const MAX_OUTPUT_BYTES: usize = 1024 * 1024;

/// Runs its first argument with both output streams as one.
const MERGED: &str = r#"exec 2>&1; eval "$1""#;

pub(super) async fn run(context: &Context, place: &Place, shell: Shell, attempt: Attempt) -> ToolOutcome {
    let timeout_s = shell.timeout_s.unwrap_or(DEFAULT_TIMEOUT_S).clamp(1, MAX_TIMEOUT_S);
    let result = match attempt {
        Attempt::Make => match environment(context, place).await {
            Ok(env) => make(context, place, shell.command, env, timeout_s).await,
            Err(outcome) => return outcome,
        },
        Attempt::Settle => {
            let settled = context.keeper.attach(place.sandbox.workspace, &place.call).await;
            settled.map(|outcome| outcome.map(|outcome| Ran { outcome, has_filled_disk: false }))
        }
    };
    match result {
        Ok(Some(ran)) => describe(&ran, &place.sandbox, timeout_s),
        Ok(None) => unknown(),
        // It was begun once, so nothing that fails now says that it was not run.
        Err(_) if attempt == Attempt::Settle => unknown(),
        Err(Error::Died) => ToolOutcome {
            text: "The sandbox ended while the command ran, perhaps as it used up its memory, so its outcome is \
                   unknown. The workspace is kept; check the state before you repeat it."
                .to_owned(),
            is_error: true,
        },
        Err(error) => {
            tracing::error!(workspace = %place.sandbox.workspace, error = &error as &dyn std::error::Error, "no sandbox");
            ToolOutcome { text: format!("The command was not run: {error}."), is_error: true }
        }
    }
}

/// What the command finds in its environment: the way out, under the call's own name, and what stands for its
/// deployment's secrets.
async fn environment(context: &Context, place: &Place) -> Result<Vec<(String, String)>, ToolOutcome> {
    let deployment_id = place.sandbox.workspace.deployment_id();
    let placeholders =
        context.ways_out.environment(deployment_id, &place.secrets).await.map_err(|error| {
            tracing::error!(%deployment_id, error = &error as &dyn std::error::Error, "no placeholders");
            let text = "The command was not run: what stands for its secrets could not be read. Try again.";
            ToolOutcome { text: text.to_owned(), is_error: true }
        })?;
    Ok(herm_egress::environment(&place.call).into_iter().chain(placeholders).collect())
}

async fn make(
    context: &Context,
    place: &Place,
    command: String,
    env: Vec<(String, String)>,
    timeout_s: u64,
) -> Result<Option<Ran>, Error> {
    let exec = Exec {
        exec_id: place.call.clone(),
        // One stream for both, so that the model reads them in the order they were written.
        argv: vec!["sh".to_owned(), "-c".to_owned(), MERGED.to_owned(), "sh".to_owned(), command],
        env,
        cwd: "/workspace".to_owned(),
        stdin: Vec::new(),
        timeout: Duration::from_secs(timeout_s),
        output_limit_bytes: MAX_OUTPUT_BYTES,
    };
    context.keeper.exec(&place.sandbox, exec).await.map(Some)
}

/// The exit status by which a shell tells that what it ran was ended by `SIGKILL`.
const KILLED_STATUS: i32 = 128 + KILL_SIGNAL;
const KILL_SIGNAL: i32 = 9;

fn describe(ran: &Ran, sandbox: &Wanted, timeout_s: u64) -> ToolOutcome {
    let outcome = &ran.outcome;
    let output = String::from_utf8_lossy(&outcome.stdout);
    // Nothing else in a sandbox ends commands in this way unless it is asked to.
    let memory = || {
        let mib = sandbox.memory_bytes() / MIB;
        format!("perhaps because the sandbox used up its {mib} MiB of memory")
    };
    let end = match outcome.exit {
        _ if ran.has_filled_disk => {
            let mib = sandbox.settings.disk_bytes() / MIB;
            Some(format!("[stopped: the workspace holds more than its {mib} MiB; remove something first]"))
        }
        Exit::Code(0) => None,
        Exit::Code(KILLED_STATUS) => Some(format!("[exit status {KILLED_STATUS}: {}]", memory())),
        Exit::Code(code) => Some(format!("[exit status {code}]")),
        Exit::Signal(KILL_SIGNAL) => Some(format!("[ended by signal {KILL_SIGNAL}: {}]", memory())),
        Exit::Signal(signal) => Some(format!("[ended by signal {signal}]")),
        Exit::TimedOut => Some(format!("[stopped: it ran longer than its {timeout_s} seconds]")),
        Exit::Killed => Some("[stopped]".to_owned()),
    };
    let mut text = output.into_owned();
    if let Some(end) = &end {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(end);
    }
    if text.is_empty() {
        text.push_str("[no output]");
    }
    ToolOutcome { text, is_error: end.is_some() }
}
