//! Everything else that a client may change, with the server killed at each fault point on the way: each request is sent
//! until it is answered, and nothing is there twice.

use herm_testkit::model_server::{RecordedRequest, Reply};
use http::Method;
use serde_json::{Value, json};

use crate::kill_matrix::{Life, walk};
use crate::scripts;
use crate::world::{World, deployment_of, text};

const MODEL: &str = "anthropic/claude-sonnet-4.5";
/// Points that the other lives are killed at.
const ELSEWHERE: [&str; 5] =
    ["migrate", "release_leases", "create_deployment", "teardown", "check_master_key"];

/// Not those that only come along: a walk has time for each of its own.
fn is_own(point: &str) -> bool {
    !ELSEWHERE.iter().any(|subject| point.contains(subject))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_changes_survive_a_kill_at_every_point() {
    walk(async || World::sqlite().await, 1, is_own, |life| Box::pin(keep_house(life))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_changes_survive_a_kill_at_every_point() {
    walk(async || World::postgres().await, 1, is_own, |life| Box::pin(keep_house(life))).await;
}

/// Uses each file tool; never ends a reply; fails once, or for good.
fn model() -> impl Fn(&RecordedRequest) -> Reply + Send + Sync + 'static {
    let failures = std::sync::atomic::AtomicUsize::new(0);
    move |request| match request.last_user_text().as_str() {
        "Wait." => Reply::text("I wait").stall(),
        "Fail." => Reply::status(400, json!({"error": {"message": "no"}})),
        "Stumble." if failures.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 => {
            Reply::status(429, json!({"error": {"message": "slow down"}}))
        }
        "Use files." => match request.tool_results_since_user().len() {
            0 => Reply::new().tool_call("write_file", json!({"path": "a", "content": "one"})),
            1 => Reply::new().tool_call("read_file", json!({"path": "a"})),
            2 => Reply::new()
                .tool_call("edit_file", json!({"path": "a", "old_text": "one", "new_text": "two"})),
            3 => Reply::new().tool_call("shell", scripts::shell("echo $TOKEN")),
            _ => Reply::text("Done."),
        },
        _ => Reply::text("Done."),
    }
}

/// Sends a request until it is answered; a POST, of which there is one to each path, acts once.
async fn ask(life: &mut Life<'_>, method: Method, path: &str, body: Value) -> Value {
    if method == Method::POST {
        return ask_as(life, path, "once", body).await;
    }
    loop {
        let client = life.client().await;
        let body = Some(&body).filter(|body| !body.is_null());
        let Ok(answer) = client.call(method.clone(), path, body).await else { continue };
        // What was deleted by a request whose answer got lost is gone.
        let is_gone = method == Method::DELETE && answer.status == 404;
        assert!(answer.status.is_success() || is_gone, "{method} {path}: {}", answer.text());
        return answer.json();
    }
}

async fn until_ended(life: &mut Life<'_>, path: &str, status: &str) {
    loop {
        let client = life.client().await;
        let Ok(answer) = client.get(path).await else { continue };
        let run = answer.json();
        if !run["ended_at"].is_null() {
            assert_eq!(run["status"], status, "{run}");
            return;
        }
    }
}

async fn say(life: &mut Life<'_>, path: &str, content: &str) -> String {
    let thread = ask_as(life, &format!("{path}/threads"), content, json!({"title": content})).await;
    let thread_id = text(&thread, "thread_id");
    let body = json!({"content": content, "thread_id": thread_id});
    let sent = ask_as(life, &format!("{path}/messages"), content, body).await;
    format!("{path}/runs/{}", text(&sent, "run_id"))
}

/// A POST under a key of its own.
async fn ask_as(life: &mut Life<'_>, path: &str, key: &str, body: Value) -> Value {
    loop {
        let client = life.client().await;
        let Ok(answer) = client.post_once(path, &key.replace(' ', "."), &body).await else { continue };
        if answer.json()["error"] != "idempotency_conflict" {
            assert!(answer.status.is_success(), "{path}: {}", answer.text());
            return answer.json();
        }
    }
}

pub(crate) async fn keep_house(life: &mut Life<'_>) {
    life.world.model.respond_with(model());
    let secret = json!({"name": "token", "value": "sk-live-1", "secret_id": "sec_token"});
    ask(life, Method::POST, "/v1/secrets", secret).await;
    ask(life, Method::PATCH, "/v1/secrets/sec_token", json!({"value": "sk-live-2"})).await;
    let mut body = deployment_of(MODEL);
    body["secrets"] = json!({"TOKEN": "sec_token"});
    let deployment_id = text(&ask(life, Method::POST, "/v1/deployments", body).await, "deployment_id");
    let path = format!("/v1/deployments/{deployment_id}");
    change(life, &path).await;
    work(life, &path).await;
    keys(life, &deployment_id).await;
    ask(life, Method::PATCH, &path, json!({"secrets": {"TOKEN": null}})).await;
    ask(life, Method::DELETE, "/v1/secrets/sec_token", Value::Null).await;
    assert_eq!(life.list("/v1/deployments").await.len(), 1);
    assert!(life.list("/v1/secrets").await.is_empty());
    life.stop().await;
}

/// Changes what the agent is.
async fn change(life: &mut Life<'_>, path: &str) {
    ask(life, Method::PATCH, path, json!({"name": "Bob"})).await;
    ask(life, Method::PATCH, &format!("{path}/tools/shell"), json!({"permission": "always_allow"})).await;
    let content = "---\nname: sums\ndescription: Adds.\n---\nAdd.";
    let skill = json!({"name": "sums", "source": "inline", "content": content});
    let skill_id = text(&ask(life, Method::POST, &format!("{path}/skills"), skill).await, "skill_id");
    let skill = format!("{path}/skills/{skill_id}");
    ask(life, Method::PUT, &skill, json!({"content": format!("{content} Twice.")})).await;
    assert_eq!(life.list(&format!("{path}/skills")).await.len(), 1);
    ask(life, Method::DELETE, &skill, Value::Null).await;
    let server = json!({"name": "files", "url": "https://mcp.example.com"});
    ask(life, Method::POST, &format!("{path}/mcp_servers"), server).await;
    let server = format!("{path}/mcp_servers/files");
    ask(life, Method::PATCH, &server, json!({"url": "https://mcp.example.org"})).await;
    assert_eq!(life.list(&format!("{path}/mcp_servers")).await.len(), 1);
    ask(life, Method::DELETE, &server, Value::Null).await;
}

/// Lets it work, fail, stumble, and be cancelled.
async fn work(life: &mut Life<'_>, path: &str) {
    let run = say(life, path, "Use files.").await;
    until_ended(life, &run, "completed").await;
    let run = say(life, path, "Fail.").await;
    until_ended(life, &run, "error").await;
    let run = say(life, path, "Stumble.").await;
    until_ended(life, &run, "completed").await;
    let run = say(life, path, "Wait.").await;
    ask(life, Method::POST, &format!("{run}/cancel"), json!({})).await;
    until_ended(life, &run, "cancelled").await;
    refused(life, path).await;
    let threads = life.list(&format!("{path}/threads")).await;
    assert_eq!(threads.len(), 5, "each was made once: {threads:#?}");
    assert_eq!(life.list(&format!("{path}/runs")).await.len(), 4, "each message made one run");
    let thread = threads.iter().find(|thread| thread["title"] == "Fail.").unwrap();
    let thread = format!("{path}/threads/{}", text(thread, "thread_id"));
    ask(life, Method::PATCH, &thread, json!({"title": "Failed"})).await;
    ask(life, Method::DELETE, &thread, Value::Null).await;
}

/// A refusal that lasts is kept under its key; one that does not is given up.
async fn refused(life: &mut Life<'_>, path: &str) {
    for (path, status) in [(format!("{path}/messages"), 400), (format!("{path}/retry"), 409)] {
        loop {
            let client = life.client().await;
            let Ok(answer) = client.post_once(&path, "refused", &json!({})).await else { continue };
            if answer.json()["error"] != "idempotency_conflict" {
                assert_eq!(answer.status, status, "{}", answer.text());
                break;
            }
        }
    }
}

async fn keys(life: &mut Life<'_>, deployment_id: &str) {
    let key = json!({"name": "reader", "scopes": ["deployments:read"]});
    let key_id = text(&ask(life, Method::POST, "/v1/keys", key).await, "key_id");
    ask(life, Method::DELETE, &format!("/v1/keys/{key_id}"), Value::Null).await;
    let token = json!({"deployment_id": deployment_id, "scopes": ["messages:send"]});
    ask(life, Method::POST, "/v1/tokens", token).await;
}
