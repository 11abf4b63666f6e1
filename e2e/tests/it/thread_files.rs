//! Tests of a deployment without a persistent file system. Each of its threads has its own workspace and sandbox.

use herm_testkit::model_server::Reply;
use herm_testkit::process::wait_until;
use serde_json::{Value, json};

use crate::model_scripts;
use crate::reader::Reader;
use crate::world::{World, deployment_of, on_both_databases, text, try_send};

on_both_databases!(a_thread_sees_only_its_own_files_and_they_are_deleted_with_it);

/// Returns true if the server has a directory for a sandbox of this thread.
fn has_sandbox(world: &World, thread_id: &str) -> bool {
    let entries = std::fs::read_dir(world.data_dir().join("sandboxes")).unwrap();
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().ends_with(thread_id))
}

async fn a_thread_sees_only_its_own_files_and_they_are_deleted_with_it(world: World) {
    // Each run writes a file that is named after its message, and then lists the files of its workspace.
    world.model.respond_with(|request| {
        let word = request.last_user_text();
        if request.tool_results_since_user().is_empty() {
            let command = format!("setsid sleep 600 & echo {word} > {word}; ls");
            Reply::new().tool_call("shell", model_scripts::shell(&command))
        } else {
            Reply::text("Done.")
        }
    });
    let server = world.start().await;
    let client = world.client_of(&server);
    let mut body = deployment_of("anthropic/claude-sonnet-4.5");
    body["sandbox"] = json!({"persistent_filesystem": false});
    let created = client.post("/v1/deployments", &body).await.unwrap().json();
    let (deployment_id, first) = (text(&created, "deployment_id"), text(&created, "thread_id"));
    let mut reader = Reader::from_the_start(&deployment_id);
    let mut threads = Vec::new();
    for (word, thread_id) in [("one", first.as_str()), ("two", "new"), ("three", first.as_str())] {
        let sent = try_send(&client, &deployment_id, json!({"content": word, "thread_id": thread_id})).await;
        assert_eq!(sent.status, 202, "{}", sent.text());
        assert_eq!(reader.until_ended(&client, &text(&sent.json(), "run_id")).await, "completed");
        threads.push(text(&sent.json(), "thread_id"));
    }
    let seen: Vec<&Value> = reader.named("tool_result").iter().map(|result| &result.data["result"]).collect();
    assert_eq!(seen, ["one\n", "two\n", "one\nthree\n"]);
    let second = &threads[1];
    let files = format!("/v1/deployments/{deployment_id}/files?thread_id={second}");
    let listed = client.get(&files).await.unwrap().json();
    assert_eq!(listed["entries"][0]["name"], "two");
    let dir = world.data_dir().join("workspaces").join(format!("{deployment_id}.threads"));
    let (first_dir, second_dir) = (dir.join(&first), dir.join(second));
    assert!(first_dir.join("three").exists() && second_dir.join("two").exists());
    assert!(has_sandbox(&world, &first) && has_sandbox(&world, second), "each thread has its own sandbox");
    let deleted = client.delete(&format!("/v1/deployments/{deployment_id}/threads/{second}")).await.unwrap();
    assert_eq!(deleted.status, 200, "{}", deleted.text());
    wait_until(|| !second_dir.exists() && !has_sandbox(&world, second)).await;
    assert!(first_dir.join("three").exists() && has_sandbox(&world, &first));
    assert_eq!(client.delete(&format!("/v1/deployments/{deployment_id}")).await.unwrap().status, 200);
    wait_until(|| !dir.exists() && !has_sandbox(&world, &first)).await;
}
