//! Tests of `…/steering` and `…/approvals`: answering steering requests and withdrawing approvals.

use herm_app::keys::NewKey;
use herm_store::journal::Position;
use herm_store::steering::StoredRequest;
use herm_types::key::Scope;
use herm_types::steering::{Approval, SteeringKind, SteeringRequest, SteeringStatus};
use herm_types::{ApprovalId, DeploymentId, RunId, SteeringId};
use http::Method;
use serde_json::{Value, json};

use crate::world::{World, minimal};

/// Inserts a pending steering request into the database. `sent` is the response of `send_message` for the message that
/// started the run.
pub(crate) async fn ask(world: &World, sent: &Value, kind: SteeringKind) -> SteeringId {
    let parse = |name: &str| sent[name].as_str().unwrap().to_owned();
    let (deployment_id, run_id): (DeploymentId, RunId) =
        (parse("deployment_id").parse().unwrap(), parse("run_id").parse().unwrap());
    let thread_id = parse("thread_id").parse().unwrap();
    let steering_id: SteeringId = world.app.ids().next();
    let asking = world.store.transaction("ask", move |tx| {
        Box::pin(async move {
            let account_id = herm_store::deployments::find(tx, deployment_id).await?.unwrap().account_id;
            // Each steering request belongs to a different tool call, so it needs an unused call number.
            let call_no =
                i64::from(herm_store::steering::pending_of_thread(tx, thread_id).await?.len() as u32) + 1;
            let is_approval = kind == SteeringKind::Approval;
            let request = SteeringRequest {
                steering_id,
                deployment_id,
                thread_id,
                run_id,
                kind,
                status: SteeringStatus::Pending,
                summary: "May I?".to_owned(),
                tool: if is_approval { "shell" } else { "ask_human" }.to_owned(),
                tool_call_id: format!("call_{call_no}"),
                arguments: is_approval.then(|| json!({"command": "ls"})),
                options: Vec::new(),
                created_at: tx.now(),
                expires_at: None,
                outcome: None,
                by: None,
                answer: None,
                resolved_at: None,
            };
            let asked = StoredRequest { position: Position { run_id, step_no: 1, call_no }, request };
            herm_store::steering::insert(tx, account_id, &asked, "fingerprint").await
        })
    });
    asking.await.unwrap();
    steering_id
}

/// Inserts a remembered approval for a shell command into the database. `sent` is the response of `send_message` for
/// the message that started the run.
pub(crate) async fn approve(world: &World, sent: &Value, command: &str) -> ApprovalId {
    let deployment_id: DeploymentId = sent["deployment_id"].as_str().unwrap().parse().unwrap();
    let (approval_id, steering_id) = (world.app.ids().next::<ApprovalId>(), world.app.ids().next());
    let arguments = json!({"command": command});
    let approving = world.store.transaction("approve", move |tx| {
        Box::pin(async move {
            let (by, created_at) = ("key_test".to_owned(), tx.now());
            let fingerprint = arguments.to_string();
            let tool = "shell".to_owned();
            let approval = Approval { approval_id, tool, arguments, steering_id, by, created_at };
            herm_store::approvals::insert(tx, deployment_id, &approval, &fingerprint).await
        })
    });
    approving.await.unwrap();
    approval_id
}

async fn fixture(world: &World, kind: SteeringKind) -> (Value, Value, String) {
    let deployment = world.deployment().await;
    let sent = world.post(&World::path(&deployment, "/messages"), &json!({"content": "first"})).await.json();
    let steering_id = ask(world, &sent, kind).await;
    let path = World::path(&deployment, &format!("/steering/{steering_id}"));
    (deployment, sent, path)
}

#[tokio::test]
async fn an_invalid_answer_is_rejected_with_its_field_errors() {
    let world = World::new().await;
    let (.., path) = fixture(&world, SteeringKind::Approval).await;
    for (body, errors) in [
        (json!({}), vec!["decision"]),
        (
            json!({"decision": "maybe", "remember": "often", "arguments": 1, "who": 1}),
            vec!["decision", "arguments", "remember", "who"],
        ),
        (json!({"decision": "answer", "message": "yes"}), vec!["decision"]),
        (json!({"decision": "deny", "remember": "always"}), vec!["remember"]),
        (json!({"decision": "deny", "arguments": {"command": "ls"}}), vec!["arguments"]),
        (json!({"decision": "approve", "arguments": {"cmd": "ls"}}), vec!["arguments"]),
    ] {
        let mut found = world.post(&path, &body).await.error_paths();
        let mut expected = errors.clone();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{body}");
    }
    assert_eq!(world.get(&path).await.json()["status"], "pending", "no invalid answer was accepted");

    let (.., path) = fixture(&world, SteeringKind::Question).await;
    for (body, error) in [
        (json!({"decision": "approve"}), "decision"),
        (json!({"decision": "answer"}), "message"),
        (json!({"decision": "answer", "message": "  "}), "message"),
    ] {
        assert_eq!(world.post(&path, &body).await.error_paths(), [error], "{body}");
    }
    let declined = world.post(&path, &json!({"decision": "deny", "message": "Ask Ada."})).await.json();
    assert_eq!(
        (&declined["outcome"], &declined["answer"]["message"]),
        (&json!("denied"), &json!("Ask Ada."))
    );
}

#[tokio::test]
async fn only_the_first_answer_counts() {
    let world = World::new().await;
    let (deployment, _, path) = fixture(&world, SteeringKind::Approval).await;
    let answer = json!({"decision": "approve", "remember": "always", "arguments": {"command": "ls -l"}});
    let first = world.post(&path, &answer).await.json();
    assert_eq!((&first["status"], &first["outcome"]), (&json!("resolved"), &json!("approved")));
    assert_eq!(first["arguments"], json!({"command": "ls"}), "the requested arguments are unchanged");
    assert_eq!(world.post(&path, &answer).await.json(), first);
    for other in [json!({"decision": "deny"}), json!({"decision": "approve"})] {
        let rejected = world.post(&path, &other).await;
        assert_eq!(rejected.status_and_code(), (409, "conflict".to_owned()), "{other}");
    }
    let approvals = world.get(&World::path(&deployment, "/approvals")).await.json();
    assert_eq!(
        approvals["data"][0]["arguments"],
        json!({"command": "ls -l"}),
        "the approved arguments are remembered"
    );
    let withdrawn =
        world.call(&world.writer, Method::DELETE, &World::path(&deployment, "/approvals"), None).await;
    assert_eq!(withdrawn.json(), json!({"withdrawn": 1}));
}

#[tokio::test]
async fn a_key_lists_only_the_steering_requests_it_can_access() {
    let world = World::new().await;
    let (deployment, sent, _) = fixture(&world, SteeringKind::Approval).await;
    let mut other = minimal();
    other["customer_id"] = json!("globex");
    let other = world.post("/v1/deployments", &other).await.json();
    let other_sent = world.post(&World::path(&other, "/messages"), &json!({"content": "hi"})).await.json();
    let other_id = ask(&world, &other_sent, SteeringKind::Question).await.to_string();
    let ids = async |key: &str, path: &str| -> Vec<String> {
        let page = world.call(key, Method::GET, path, None).await.json();
        page["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["steering_id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ids(&world.reader, "/v1/steering").await.len(), 2);
    assert_eq!(ids(&world.other_account, "/v1/steering").await, [] as [String; 0]);
    assert_eq!(ids(&world.reader, &World::path(&other, "/steering")).await, [other_id.as_str()]);
    let limited = NewKey {
        name: "globex".to_owned(),
        account: "default".to_owned(),
        scopes: vec![Scope::DeploymentsRead],
        deployment_id: None,
        customer_id: Some("globex".to_owned()),
        expires_at: None,
    };
    let (limited, _) = world.limited_key(limited).await;
    assert_eq!(ids(&limited, "/v1/steering?status=pending").await, [other_id.as_str()]);
    let token = world.token(&deployment).await;
    assert_eq!(ids(&token, "/v1/steering").await.len(), 1);
    // With `status=pending`, an answered request is not listed. The requests of a deleted deployment are never listed.
    let path = World::path(&other, &format!("/steering/{other_id}"));
    world.post(&path, &json!({"decision": "answer", "message": "a"})).await;
    assert_eq!(ids(&world.reader, "/v1/steering?status=pending").await.len(), 1);
    assert_eq!(ids(&world.reader, "/v1/steering?status=resolved").await, [other_id]);
    let path = format!("/v1/deployments/{}", sent["deployment_id"].as_str().unwrap());
    world.call(&world.writer, Method::DELETE, &path, None).await;
    assert_eq!(ids(&world.reader, "/v1/steering?status=pending").await, [] as [String; 0]);
}

#[tokio::test]
async fn a_token_that_can_only_send_messages_answers_questions_but_approves_nothing() {
    let world = World::new().await;
    let (deployment, _, path) = fixture(&world, SteeringKind::Approval).await;
    let chat_token = json!({"deployment_id": deployment["deployment_id"], "scopes": ["messages:send", "deployments:read"]});
    let chat_token = world.post("/v1/tokens", &chat_token).await.json()["token"].as_str().unwrap().to_owned();
    let send = async |key: &str, path: &str| {
        let sent = world.call(key, Method::POST, path, Some(&json!({"content": "yes"}))).await;
        assert_eq!(sent.status, 202, "{}", sent.json());
    };
    send(&chat_token, &World::path(&deployment, "/messages")).await;
    assert_eq!(
        world.get(&path).await.json()["status"],
        "pending",
        "the message of a chat token approved the call"
    );
    send(&world.writer, &World::path(&deployment, "/messages")).await;
    assert_eq!(world.get(&path).await.json()["outcome"], "approved");

    let (deployment, _, path) = fixture(&world, SteeringKind::Question).await;
    let chat_token = json!({"deployment_id": deployment["deployment_id"], "scopes": ["messages:send", "deployments:read"]});
    let chat_token = world.post("/v1/tokens", &chat_token).await.json()["token"].as_str().unwrap().to_owned();
    send(&chat_token, &World::path(&deployment, "/messages")).await;
    assert_eq!(world.get(&path).await.json()["answer"]["message"], "yes");
}
