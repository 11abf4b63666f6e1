//! Tests of a complete run: a message, a command that writes a file in the sandbox, and the agent's reply.

use herm_types::DeploymentId;
use serde_json::Value;

use crate::reader::Reader;
use crate::world::{World, create, on_both_databases, send};
use crate::{log, model_scripts};

on_both_databases!(
    an_anthropic_model_completes_a_run_with_a_command,
    an_openai_model_completes_a_run_with_a_command
);

async fn an_anthropic_model_completes_a_run_with_a_command(world: World) {
    complete_run(&world, "anthropic/claude-sonnet-4.5").await;
}

async fn an_openai_model_completes_a_run_with_a_command(world: World) {
    complete_run(&world, "openai/gpt-5").await;
}

async fn complete_run(world: &World, model: &str) {
    world.model.respond_with(model_scripts::use_shell("printf 'hello ünïverse' > notes.txt; cat notes.txt"));
    let server = world.start().await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, model).await;
    deployment_id.parse::<DeploymentId>().unwrap();
    let mut reader = Reader::from_the_start(&deployment_id);
    let run_id = send(&client, &deployment_id, "Write a note.").await;
    assert_eq!(reader.until_ended(&client, &run_id).await, "completed");

    log::check(&reader.seen);
    log::check_stored(&client, &deployment_id, &reader.seen).await;
    let result = &reader.named("tool_result")[0].data;
    assert_eq!(result["result"], "hello ünïverse");
    assert_eq!(result["is_error"], false);
    let messages: Vec<&str> =
        reader.named("message").iter().map(|event| event.data["content"].as_str().unwrap()).collect();
    assert_eq!(messages, ["Write a note.", "I write it.", &model_scripts::reply_text()]);
    let end = &reader.seen.last().unwrap().data;
    assert_eq!(end["usage"]["model_calls"], 2);
    assert_eq!(end["usage"]["tool_calls"], 1);

    let file =
        client.get(&format!("/v1/deployments/{deployment_id}/files/content?path=notes.txt")).await.unwrap();
    assert_eq!((file.status.as_u16(), file.text().as_str()), (200, "hello ünïverse"));
    let run = client.get(&format!("/v1/deployments/{deployment_id}/runs/{run_id}")).await.unwrap().json();
    assert_eq!(run["status"], "completed");
    check_steps(&client, &format!("/v1/deployments/{deployment_id}/runs/{run_id}/steps"), result).await;
    check_thread(&client, &deployment_id).await;
    assert_eq!(world.model.request_count(), 2);
    assert!(world.model.requests()[0].system().contains("Be brief."));
}

async fn check_thread(client: &herm_testkit::client::Client, deployment_id: &str) {
    let deployment = client.get(&format!("/v1/deployments/{deployment_id}")).await.unwrap().json();
    let thread_id = deployment["thread_id"].as_str().unwrap();
    let thread =
        client.get(&format!("/v1/deployments/{deployment_id}/threads/{thread_id}")).await.unwrap().json();
    let messages = thread["messages"].as_array().unwrap();
    let messages: Vec<(&str, &str)> = messages
        .iter()
        .map(|message| (message["role"].as_str().unwrap(), message["content"].as_str().unwrap()))
        .collect();
    let reply = model_scripts::reply_text();
    assert_eq!(messages, [("user", "Write a note."), ("agent", "I write it."), ("agent", reply.as_str())]);
    assert_eq!(thread["status"], "idle");
}

async fn check_steps(client: &herm_testkit::client::Client, path: &str, tool_result: &Value) {
    let (mut steps, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("{path}?limit=2{cursor}")).await.unwrap().json();
        steps.extend(page["data"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let summary: Vec<_> = steps
        .iter()
        .map(|step| {
            (step["step"].as_i64().unwrap(), step["kind"].as_str().unwrap(), step["status"].as_str().unwrap())
        })
        .collect();
    assert_eq!(summary, [(1, "model", "completed"), (1, "tool", "completed"), (2, "model", "completed")]);
    assert_eq!(steps[1]["name"], "shell");
    assert_eq!(steps[1]["tool_call_id"], tool_result["tool_call_id"]);
    assert_eq!(steps[0]["tokens"]["output_tokens"], 5);
    assert!(steps.iter().all(|step| step["duration_ms"].is_i64()), "{steps:?}");
}
