//! Tests that kill the server with SIGKILL during a run and start it again.

use std::path::Path;

use herm_testkit::model_server::Gate;
use herm_testkit::process::{kill_children, processes_that_mention, wait_until};

use crate::reader::Reader;
use crate::world::{World, create, on_both_databases, send};
use crate::{log, model_scripts};

on_both_databases!(
    a_reply_cut_off_by_a_kill_is_continued,
    an_openai_reply_cut_off_by_a_kill_is_continued,
    a_reply_that_differs_after_a_kill_becomes_a_new_message,
    a_command_that_outlives_the_server_is_not_run_again,
    a_command_whose_sandbox_dies_too_has_an_unknown_outcome,
);

async fn a_reply_cut_off_by_a_kill_is_continued(world: World) {
    kill_in_mid_stream(&world, "anthropic/claude-sonnet-4.5").await;
}

async fn an_openai_reply_cut_off_by_a_kill_is_continued(world: World) {
    kill_in_mid_stream(&world, "openai/gpt-5").await;
}

async fn kill_in_mid_stream(world: &World, model: &str) {
    let gate = Gate::new();
    world.model.respond_with(model_scripts::use_shell_and_wait("echo once >> log.txt", &gate));
    let server = world.start().await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, model).await;
    let mut reader = Reader::from_the_start(&deployment_id);
    let run_id = send(&client, &deployment_id, "Write a note.").await;
    reader.until(&client, |event| event.data["delta"] == model_scripts::REPLY[0]).await;
    gate.reached().await;
    server.kill().await.unwrap();
    reader.drain().await;

    let server = world.start().await;
    let client = world.client_of(&server);
    gate.reached_times(2).await;
    gate.open();
    assert_eq!(reader.until_ended(&client, &run_id).await, "completed");
    log::check(&reader.seen);
    log::check_stored(&client, &deployment_id, &reader.seen).await;
    let messages = reader.named("message");
    let last = &messages.last().unwrap().data;
    assert_eq!(last["content"], model_scripts::reply_text());
    assert!(last.get("truncated").is_none(), "{last}");
    assert_eq!(messages.len(), 3, "the reply was doubled: {messages:#?}");
    let lines = std::fs::read_to_string(world.workspace(&deployment_id).join("log.txt")).unwrap();
    assert_eq!(lines, "once\n");
}

/// The server is killed in the middle of a reply, and the repeated model call returns a different reply. The text that
/// clients have already received becomes a truncated message, and the new reply is published as a separate message.
async fn a_reply_that_differs_after_a_kill_becomes_a_new_message(world: World) {
    use herm_testkit::model_server::Reply;
    let gate = Gate::new();
    world.model.push(Reply::text("It is seven").gate(&gate).then_text("."));
    world.model.push(Reply::text("It is eight."));
    let server = world.start().await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, "anthropic/claude-sonnet-4.5").await;
    let mut reader = Reader::from_the_start(&deployment_id);
    let run_id = send(&client, &deployment_id, "What time is it?").await;
    reader.until(&client, |event| event.name == "token").await;
    server.kill().await.unwrap();
    let server = world.start().await;
    let client = world.client_of(&server);
    reader.drain().await;
    assert_eq!(reader.until_ended(&client, &run_id).await, "completed");
    log::check(&reader.seen);
    let messages: Vec<_> = reader.named("message").iter().map(|event| event.data.clone()).collect();
    assert_eq!(messages[1]["content"], "It is seven");
    assert_eq!(messages[1]["truncated"], true);
    assert_eq!(messages[2]["content"], "It is eight.");
    assert_ne!(messages[1]["message_id"], messages[2]["message_id"]);
}

/// A command that writes to a log file when it starts, waits until the file `go` exists, and writes to the log file
/// again.
const WAITING_COMMAND: &str =
    "echo started >> log.txt; until test -e go; do sleep 0.02; done; echo ended >> log.txt; echo finished";

async fn start_waiting_command(world: &World) -> (Reader, String, String, herm_testkit::process::Server) {
    world.model.respond_with(model_scripts::use_shell(WAITING_COMMAND));
    let server = world.start().await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, "anthropic/claude-sonnet-4.5").await;
    let mut reader = Reader::from_the_start(&deployment_id);
    let run_id = send(&client, &deployment_id, "Wait for it.").await;
    reader.until(&client, |event| event.name == "tool_call").await;
    let log_file = world.workspace(&deployment_id).join("log.txt");
    wait_until(|| lines(&log_file) == ["started"]).await;
    (reader, deployment_id, run_id, server)
}

fn lines(file: &Path) -> Vec<String> {
    std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

async fn a_command_that_outlives_the_server_is_not_run_again(world: World) {
    let (mut reader, deployment_id, run_id, server) = start_waiting_command(&world).await;
    let workspace = world.workspace(&deployment_id);
    server.kill().await.unwrap();
    // Lets the command end while no server is running.
    std::fs::write(workspace.join("go"), "").unwrap();
    wait_until(|| lines(&workspace.join("log.txt")) == ["started", "ended"]).await;

    let server = world.start().await;
    let client = world.client_of(&server);
    reader.drain().await;
    assert_eq!(reader.until_ended(&client, &run_id).await, "completed");
    log::check(&reader.seen);
    let result = &reader.named("tool_result")[0].data;
    assert_eq!(result["result"], "finished\n");
    assert_eq!(result["is_error"], false);
    assert_eq!(lines(&workspace.join("log.txt")), ["started", "ended"]);
}

async fn a_command_whose_sandbox_dies_too_has_an_unknown_outcome(world: World) {
    let (mut reader, deployment_id, run_id, server) = start_waiting_command(&world).await;
    server.kill().await.unwrap();
    let sandbox = world.sandbox_process(&deployment_id);
    let processes = processes_that_mention(&sandbox);
    assert!(!processes.is_empty());
    processes.into_iter().for_each(kill_children);
    wait_until(|| processes_that_mention(&sandbox).is_empty()).await;
    std::fs::write(world.workspace(&deployment_id).join("go"), "").unwrap();

    let server = world.start().await;
    let client = world.client_of(&server);
    reader.drain().await;
    assert_eq!(reader.until_ended(&client, &run_id).await, "completed");
    log::check(&reader.seen);
    let result = &reader.named("tool_result")[0].data;
    assert_eq!(result["is_error"], true);
    assert!(result["result"].as_str().unwrap().contains("outcome of this call is unknown"), "{result}");
    assert_eq!(lines(&world.workspace(&deployment_id).join("log.txt")), ["started"]);
}
