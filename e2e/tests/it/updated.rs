//! Tests that update a deployment, for example during a run. The active run continues with the version with which it
//! started, and the next run uses the new version.

use herm_testkit::model_server::{RecordedRequest, Reply};
use herm_testkit::process::wait_until;
use http::Method;
use serde_json::{Value, json};

use crate::reader::Reader;
use crate::world::{World, create, on_both_databases, send};
use crate::{log, model_scripts};

on_both_databases!(a_run_uses_its_version_until_it_ends, a_disabled_or_denied_tool_is_not_executed,);

fn system(request: &RecordedRequest) -> String {
    request.body()["system"].to_string()
}

async fn a_run_uses_its_version_until_it_ends(world: World) {
    world.model.respond_with(|request| match request.tool_results_since_user().len() {
        0 => Reply::new()
            .tool_call("shell", model_scripts::shell("touch started; until test -e go; do sleep 0.02; done")),
        _ => Reply::text("Done."),
    });
    let server = world.start().await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, "anthropic/claude-sonnet-4.5").await;
    let path = format!("/v1/deployments/{deployment_id}");
    let mut reader = Reader::from_the_start(&deployment_id);
    let first = send(&client, &deployment_id, "Go.").await;
    let workspace = world.workspace(&deployment_id);
    wait_until(|| workspace.join("started").exists()).await;
    // Makes two updates, so that the active run's version is neither the current nor the previous one.
    for prompt in ["Be longer.", "Be longest."] {
        let body = json!({"system_prompt": prompt, "model": "anthropic/other"});
        let response = client.call(Method::PATCH, &path, Some(&body)).await.unwrap();
        assert_eq!(response.status, 200, "{}", response.text());
    }
    server.kill().await.unwrap();
    std::fs::write(workspace.join("go"), "").unwrap();
    let server = world.start().await;
    let client = world.client_of(&server);
    reader.drain().await;
    assert_eq!(reader.until_ended(&client, &first).await, "completed");
    let first_requests = world.model.requests();
    assert!(first_requests.len() >= 2);
    for request in &first_requests {
        assert!(system(request).contains("Be brief."), "{}", system(request));
        assert_eq!(request.model(), "claude-sonnet-4.5");
    }
    std::fs::remove_file(workspace.join("started")).unwrap();
    let second = send(&client, &deployment_id, "Again.").await;
    assert_eq!(reader.until_ended(&client, &second).await, "completed");
    for request in &world.model.requests()[first_requests.len()..] {
        assert!(system(request).contains("Be longest."), "{}", system(request));
        assert_eq!(request.model(), "other");
    }
    log::check(&reader.seen);
}

async fn a_disabled_or_denied_tool_is_not_executed(world: World) {
    world.model.respond_with(|request| match request.tool_results_since_user().len() {
        0 => Reply::new()
            .tool_call("shell", model_scripts::shell("touch shell"))
            .tool_call("write_file", json!({"path": "written", "content": ""})),
        _ => Reply::text("Done."),
    });
    let server = world.start().await;
    let client = world.client_of(&server);
    let deployment_id = create(&client, "anthropic/claude-sonnet-4.5").await;
    for (tool, setting) in
        [("shell", json!({"enabled": false})), ("write_file", json!({"permission": "deny"}))]
    {
        let path = format!("/v1/deployments/{deployment_id}/tools/{tool}");
        let response = client.call(Method::PATCH, &path, Some(&setting)).await.unwrap();
        assert_eq!(response.status, 200, "{}", response.text());
    }
    let mut reader = Reader::from_the_start(&deployment_id);
    let run_id = send(&client, &deployment_id, "Go.").await;
    assert_eq!(reader.until_ended(&client, &run_id).await, "completed");
    let results: Vec<Value> = reader.named("tool_result").iter().map(|event| event.data.clone()).collect();
    assert!(results.len() == 2 && results.iter().all(|result| result["is_error"] == true), "{results:?}");
    let workspace = world.workspace(&deployment_id);
    assert!(!workspace.join("shell").exists() && !workspace.join("written").exists());
    let offered = world.model.requests()[0].body()["tools"].to_string();
    assert!(!offered.contains("\"shell\"") && offered.contains("\"write_file\""), "{offered}");
}
