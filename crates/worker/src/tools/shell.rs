//! The tool `shell`, which executes a command in the deployment's sandbox.

use std::time::Duration;

use herm_agent::tools::{CallMode, DEFAULT_TIMEOUT_S, MAX_TIMEOUT_S, Shell};
use herm_sandbox::{Error, Exec, Exit};
use herm_types::model::ToolOutcome;

use super::call::{ToolCallContext, unknown_outcome};
use crate::context::Context;
use crate::sandboxes::pool::{ExecResult, MIB, SandboxConfig};

/// The maximum size of the output that is retained per command, in bytes. If a command prints more, only the beginning
/// and the end are retained.
const MAX_OUTPUT_BYTES: usize = 1024 * 1024;

/// A shell script that executes the command in its first argument, with stderr redirected to stdout. It removes the
/// argument first: the command must not be able to refer to its own text as `$1`, because the analysis of its risks
/// relies on a command without positional parameters.
const MERGE_OUTPUT: &str = r#"exec 2>&1; eval "shift; $1""#;

pub(super) async fn run(
    context: &Context,
    call_context: &ToolCallContext,
    shell: Shell,
    mode: CallMode,
) -> ToolOutcome {
    let timeout_s = shell.timeout_s.unwrap_or(DEFAULT_TIMEOUT_S).clamp(1, MAX_TIMEOUT_S);
    let result = match mode {
        CallMode::Execute => match environment(context, call_context).await {
            Ok(env) => execute(context, call_context, shell.command, env, timeout_s).await,
            Err(outcome) => return outcome,
        },
        CallMode::Recover => {
            let settled =
                context.sandbox_pool.attach(call_context.sandbox.workspace, &call_context.call_name).await;
            settled.map(|outcome| outcome.map(|outcome| ExecResult { outcome, exceeded_disk_quota: false }))
        }
    };
    match result {
        Ok(Some(result)) => describe(&result, &call_context.sandbox, timeout_s),
        Ok(None) => unknown_outcome(),
        // The sandbox cannot be reached, but an earlier attempt may have executed the command.
        Err(_) if mode == CallMode::Recover => unknown_outcome(),
        Err(Error::Died) => ToolOutcome {
            text: "The sandbox ended while the command ran, perhaps because it ran out of memory, so its outcome is \
                   unknown. The workspace is preserved. Check the state before you repeat the command."
                .to_owned(),
            is_error: true,
        },
        Err(error) => {
            tracing::error!(workspace = %call_context.sandbox.workspace, call_name = call_context.call_name, error = &error as &dyn std::error::Error, "failed to execute a command in a sandbox");
            ToolOutcome { text: format!("The command was not run: {error}."), is_error: true }
        }
    }
}

/// Returns the environment variables of the command: the proxy variables, with the call's unique name as the proxy user
/// name, and the variables that hold the placeholders of the deployment's secrets.
async fn environment(
    context: &Context,
    call_context: &ToolCallContext,
) -> Result<Vec<(String, String)>, ToolOutcome> {
    let deployment_id = call_context.sandbox.workspace.deployment_id();
    let placeholders =
        context.egress_service.environment(deployment_id, &call_context.secrets).await.map_err(|error| {
            tracing::error!(%deployment_id, call_name = call_context.call_name, error = &error as &dyn std::error::Error, "failed to read the secret placeholders for a command");
            let text = "The command was not run: the placeholders of its secrets could not be read. Try again.";
            ToolOutcome { text: text.to_owned(), is_error: true }
        })?;
    Ok(herm_egress::environment(&call_context.call_name).into_iter().chain(placeholders).collect())
}

async fn execute(
    context: &Context,
    call_context: &ToolCallContext,
    command: String,
    env: Vec<(String, String)>,
    timeout_s: u64,
) -> Result<Option<ExecResult>, Error> {
    let exec = Exec {
        exec_id: call_context.call_name.clone(),
        // Stdout and stderr are merged, so that the model reads their output in the order in which it was written.
        argv: vec!["sh".to_owned(), "-c".to_owned(), MERGE_OUTPUT.to_owned(), "sh".to_owned(), command],
        env,
        cwd: "/workspace".to_owned(),
        stdin: Vec::new(),
        timeout: Duration::from_secs(timeout_s),
        output_limit_bytes: MAX_OUTPUT_BYTES,
    };
    context.sandbox_pool.exec(&call_context.sandbox, exec).await.map(Some)
}

/// The exit status of a shell whose command was killed by `SIGKILL`: 128 plus the number of the signal.
const KILLED_STATUS: i32 = 128 + KILL_SIGNAL;
const KILL_SIGNAL: i32 = 9;

/// Renders the outcome of a command as text for the model: the output, and a note if the command failed.
fn describe(result: &ExecResult, sandbox: &SandboxConfig, timeout_s: u64) -> ToolOutcome {
    let outcome = &result.outcome;
    let output = String::from_utf8_lossy(&outcome.stdout);
    // `SIGKILL` is usually sent by the kernel's out-of-memory killer, but a program in the sandbox may have sent it
    // too.
    let memory = || {
        let mib = sandbox.memory_bytes() / MIB;
        format!("perhaps because the sandbox ran out of its {mib} MiB of memory")
    };
    let end = match outcome.exit {
        _ if result.exceeded_disk_quota => {
            let mib = sandbox.settings.disk_bytes() / MIB;
            Some(format!("[stopped: the workspace exceeds its limit of {mib} MiB; delete files first]"))
        }
        Exit::Code(0) => None,
        Exit::Code(KILLED_STATUS) => Some(format!("[exit status {KILLED_STATUS}: {}]", memory())),
        Exit::Code(code) => Some(format!("[exit status {code}]")),
        Exit::Signal(KILL_SIGNAL) => Some(format!("[ended by signal {KILL_SIGNAL}: {}]", memory())),
        Exit::Signal(signal) => Some(format!("[ended by signal {signal}]")),
        Exit::TimedOut => Some(format!("[stopped: the command exceeded its timeout of {timeout_s} seconds]")),
        Exit::Killed => Some("[stopped by the server]".to_owned()),
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
