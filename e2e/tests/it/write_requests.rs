//! A scenario that sends all write requests that no other scenario sends. Each request is repeated until the server
//! responds, and nothing may be created twice.

use herm_testkit::client::Response;
use herm_testkit::model_server::{RecordedRequest, Reply};
use http::Method;
use serde_json::{Value, json};

use crate::kill_matrix::{RestartingServer, kill_at_each_failpoint};
use crate::model_scripts;
use crate::world::{World, deployment_of, text};

const MODEL: &str = "anthropic/claude-sonnet-4.5";
/// The subjects of failpoints at which other scenarios already kill the server. A failpoint's name is `moment:subject`.
const OTHER_SCENARIOS: [&str; 5] =
    ["migrate", "release_leases", "create_deployment", "teardown", "check_master_key"];

/// Returns true if this scenario must test the failpoint. Failpoints that other scenarios test are skipped to save
/// time.
fn is_own(point: &str) -> bool {
    !OTHER_SCENARIOS.iter().any(|subject| point.contains(subject))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_write_requests_survive_a_kill_at_every_failpoint() {
    kill_at_each_failpoint(
        async || World::sqlite().await,
        1,
        is_own,
        |server| Box::pin(run_scenario(server)),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_write_requests_survive_a_kill_at_every_failpoint() {
    kill_at_each_failpoint(
        async || World::postgres().await,
        1,
        is_own,
        |server| Box::pin(run_scenario(server)),
    )
    .await;
}

/// Returns the model's script. Depending on the user message, the model uses every file tool, stalls, fails
/// permanently, or fails once and then succeeds.
fn model() -> impl Fn(&RecordedRequest) -> Reply + Send + Sync + 'static {
    let failures = std::sync::atomic::AtomicUsize::new(0);
    move |request| match request.last_user_text().as_str() {
        "Wait." => Reply::text("I wait").stall(),
        "Fail." => Reply::status(400, json!({"error": {"message": "no"}})),
        "Fail once." if failures.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 => {
            Reply::status(429, json!({"error": {"message": "slow down"}}))
        }
        "Use files." => match request.tool_results_since_user().len() {
            0 => Reply::new().tool_call("write_file", json!({"path": "a", "content": "one"})),
            1 => Reply::new().tool_call("read_file", json!({"path": "a"})),
            2 => Reply::new()
                .tool_call("edit_file", json!({"path": "a", "old_text": "one", "new_text": "two"})),
            3 => Reply::new().tool_call("shell", model_scripts::shell("echo $TOKEN")),
            _ => Reply::text("Done."),
        },
        _ => Reply::text("Done."),
    }
}

/// Sends a request, and repeats it until the server responds. A POST is sent with an idempotency key, which is the same
/// for all paths.
async fn send(server: &mut RestartingServer<'_>, method: Method, path: &str, body: Value) -> Value {
    if method == Method::POST {
        return post(server, path, "once", body).await;
    }
    loop {
        let client = server.client().await;
        let body = Some(&body).filter(|body| !body.is_null());
        let Ok(response) = client.call(method.clone(), path, body).await else { continue };
        // 404 also means success: an earlier attempt, whose response was lost, may have deleted the resource.
        let is_deleted = method == Method::DELETE && response.status == 404;
        assert!(response.status.is_success() || is_deleted, "{method} {path}: {}", response.text());
        return response.json();
    }
}

async fn wait_until_ended(server: &mut RestartingServer<'_>, path: &str, status: &str) {
    loop {
        let client = server.client().await;
        let Ok(response) = client.get(path).await else { continue };
        let run = response.json();
        if !run["ended_at"].is_null() {
            assert_eq!(run["status"], status, "{run}");
            return;
        }
    }
}

async fn send_message(server: &mut RestartingServer<'_>, path: &str, content: &str) -> String {
    let thread = post(server, &format!("{path}/threads"), content, json!({"title": content})).await;
    let thread_id = text(&thread, "thread_id");
    let body = json!({"content": content, "thread_id": thread_id});
    let sent = post(server, &format!("{path}/messages"), content, body).await;
    format!("{path}/runs/{}", text(&sent, "run_id"))
}

/// Sends a POST with this idempotency key, and repeats it until the server responds.
async fn post(server: &mut RestartingServer<'_>, path: &str, key: &str, body: Value) -> Value {
    loop {
        let client = server.client().await;
        let Ok(response) = client.post_once(path, &key.replace(' ', "."), &body).await else { continue };
        if !is_in_progress(&response) {
            assert!(response.status.is_success(), "{path}: {}", response.text());
            return response.json();
        }
    }
}

pub(crate) async fn run_scenario(server: &mut RestartingServer<'_>) {
    server.world.model.respond_with(model());
    let secret = json!({"name": "token", "value": "sk-live-1", "secret_id": "sec_token"});
    send(server, Method::POST, "/v1/secrets", secret).await;
    send(server, Method::PATCH, "/v1/secrets/sec_token", json!({"value": "sk-live-2"})).await;
    let mut body = deployment_of(MODEL);
    body["secrets"] = json!({"TOKEN": "sec_token"});
    let deployment_id = text(&send(server, Method::POST, "/v1/deployments", body).await, "deployment_id");
    let path = format!("/v1/deployments/{deployment_id}");
    change_deployment(server, &path).await;
    use_runs(server, &path).await;
    use_keys(server, &deployment_id).await;
    send(server, Method::PATCH, &path, json!({"secrets": {"TOKEN": null}})).await;
    send(server, Method::DELETE, "/v1/secrets/sec_token", Value::Null).await;
    assert_eq!(server.list("/v1/deployments").await.len(), 1);
    assert!(server.list("/v1/secrets").await.is_empty());
    server.stop().await;
}

/// Changes the deployment's name, tools, skills and MCP servers.
async fn change_deployment(server: &mut RestartingServer<'_>, path: &str) {
    send(server, Method::PATCH, path, json!({"name": "Bob"})).await;
    send(server, Method::PATCH, &format!("{path}/tools/shell"), json!({"permission": "always_allow"})).await;
    let content = "---\nname: sums\ndescription: Adds.\n---\nAdd.";
    let skill = json!({"name": "sums", "source": "inline", "content": content});
    let skill_id = text(&send(server, Method::POST, &format!("{path}/skills"), skill).await, "skill_id");
    let skill = format!("{path}/skills/{skill_id}");
    send(server, Method::PUT, &skill, json!({"content": format!("{content} Twice.")})).await;
    assert_eq!(server.list(&format!("{path}/skills")).await.len(), 1);
    send(server, Method::DELETE, &skill, Value::Null).await;
    let mcp_server = json!({"name": "files", "url": "https://mcp.example.com"});
    send(server, Method::POST, &format!("{path}/mcp_servers"), mcp_server).await;
    let mcp_server = format!("{path}/mcp_servers/files");
    send(server, Method::PATCH, &mcp_server, json!({"url": "https://mcp.example.org"})).await;
    assert_eq!(server.list(&format!("{path}/mcp_servers")).await.len(), 1);
    send(server, Method::DELETE, &mcp_server, Value::Null).await;
}

/// Executes four runs: one completes, one fails, one completes after a retried model call, and one is cancelled.
async fn use_runs(server: &mut RestartingServer<'_>, path: &str) {
    let run = send_message(server, path, "Use files.").await;
    wait_until_ended(server, &run, "completed").await;
    let run = send_message(server, path, "Fail.").await;
    wait_until_ended(server, &run, "error").await;
    let run = send_message(server, path, "Fail once.").await;
    wait_until_ended(server, &run, "completed").await;
    let run = send_message(server, path, "Wait.").await;
    send(server, Method::POST, &format!("{run}/cancel"), json!({})).await;
    wait_until_ended(server, &run, "cancelled").await;
    send_invalid_requests(server, path).await;
    let threads = server.list(&format!("{path}/threads")).await;
    assert_eq!(threads.len(), 5, "each thread was created once: {threads:#?}");
    assert_eq!(server.list(&format!("{path}/runs")).await.len(), 4, "each message started one run");
    let thread = threads.iter().find(|thread| thread["title"] == "Fail.").unwrap();
    let thread = format!("{path}/threads/{}", text(thread, "thread_id"));
    send(server, Method::PATCH, &thread, json!({"title": "Failed"})).await;
    send(server, Method::DELETE, &thread, Value::Null).await;
}

/// Returns true if the response says that an earlier attempt with the same idempotency key is still in progress.
fn is_in_progress(response: &Response) -> bool {
    let body = response.json();
    body["error"] == "conflict"
        && body["message"].as_str().is_some_and(|message| message.contains("is in progress"))
}

/// Sends requests that fail. After a permanent error, the server stores the response under the idempotency key. After
/// any other error, it releases its claim on the key, so that a retry is executed.
async fn send_invalid_requests(server: &mut RestartingServer<'_>, path: &str) {
    for (path, status) in [(format!("{path}/messages"), 400), (format!("{path}/retry"), 409)] {
        loop {
            let client = server.client().await;
            let Ok(response) = client.post_once(&path, "refused", &json!({})).await else { continue };
            if !is_in_progress(&response) {
                assert_eq!(response.status, status, "{}", response.text());
                break;
            }
        }
    }
}

async fn use_keys(server: &mut RestartingServer<'_>, deployment_id: &str) {
    let key = json!({"name": "reader", "scopes": ["deployments:read"]});
    let key_id = text(&send(server, Method::POST, "/v1/keys", key).await, "key_id");
    send(server, Method::DELETE, &format!("/v1/keys/{key_id}"), Value::Null).await;
    let token = json!({"deployment_id": deployment_id, "scopes": ["messages:send"]});
    send(server, Method::POST, "/v1/tokens", token).await;
}
