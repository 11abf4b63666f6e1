//! The access table: for every operation of the OpenAPI document, the HTTP status that each kind of caller must get.

use std::collections::BTreeSet;

use herm_app::keys::NewKey;
use herm_types::key::Scope;
use herm_types::steering::SteeringKind;
use herm_types::{ApprovalId, KeyId, SnapshotId, SteeringId};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::world::{World, minimal};
use crate::{snapshots, steering};

/// An operation, an example request, and the HTTP status that each kind of caller must get.
pub(crate) struct Row {
    pub(crate) operation: &'static str,
    pub(crate) method: Method,
    path: &'static str,
    pub(crate) body: Option<Value>,
    anonymous: u16,
    reader: u16,
    writer: u16,
    other_account: u16,
    token: u16,
    admin: Option<u16>,
}

impl Row {
    /// Sets the status that a browser token with all scopes must get. The default is 403.
    fn token(mut self, status: u16) -> Self {
        self.token = status;
        self
    }

    /// Sets the status that a key with the scope `admin` must get. By default, the operation is not tested with such a
    /// key.
    fn admin(mut self, status: u16) -> Self {
        self.admin = Some(status);
        self
    }
}

fn row(
    operation: &'static str,
    method: Method,
    path: &'static str,
    body: Option<Value>,
    statuses: [u16; 4],
) -> Row {
    let [anonymous, reader, writer, other_account] = statuses;
    Row { operation, method, path, body, anonymous, reader, writer, other_account, token: 403, admin: None }
}

const SKILL: &str = "---\nname: a\ndescription: b\n---\n";

/// Returns the access table. Placeholders in paths and bodies stand for ids of resources of the account `default`:
/// `{d}` is a deployment, `{t}` its thread, `{r}` a run, `{s}` a skill, `{k}` a key, `{x}` a secret, `{n}` a snapshot,
/// `{q}` a steering request and `{a}` an approval.
pub(crate) fn table() -> Vec<Row> {
    let mut table = of_deployments();
    table.extend(of_agents());
    // The rows for steering must come before the rows for messages: they need a pending steering request, and a message
    // would answer it.
    table.extend(of_steering());
    table.extend(of_threads_and_runs());
    table.extend(of_files());
    table.extend(of_account());
    table.extend(of_snapshots());
    // This row must be the last one, because the writer's request deletes the deployment. The test sends this request
    // after those of the other callers, which therefore still find the deployment.
    table.push(row("delete_deployment", Method::DELETE, "/v1/deployments/{d}", None, [401, 403, 200, 404]));
    table
}

fn of_deployments() -> Vec<Row> {
    vec![
        row("get_health", Method::GET, "/healthz", None, [200, 200, 200, 200]).token(200),
        row("get_readiness", Method::GET, "/readyz", None, [200, 200, 200, 200]).token(200),
        row("get_openapi", Method::GET, "/openapi.json", None, [200, 200, 200, 200]).token(200),
        row("list_models", Method::GET, "/v1/models", None, [401, 200, 200, 200]).token(200),
        row("create_deployment", Method::POST, "/v1/deployments", Some(minimal()), [401, 403, 201, 201]),
        row("list_deployments", Method::GET, "/v1/deployments", None, [401, 200, 200, 200]).token(200),
        row("get_deployment", Method::GET, "/v1/deployments/{d}", None, [401, 200, 200, 404]).token(200),
        row("update_deployment", Method::PATCH, "/v1/deployments/{d}", Some(json!({})), [401, 403, 200, 404]),
        // The writer gets 409, because the deployment is `ready` and only one with the status `error` can be retried.
        row("retry_deployment", Method::POST, "/v1/deployments/{d}/retry", None, [401, 403, 409, 404]),
    ]
}

fn of_agents() -> Vec<Row> {
    let skill = Some(json!({"name": "added", "source": "inline", "content": SKILL}));
    let server = Some(json!({"name": "crm", "url": "https://crm.example.com/mcp"}));
    vec![
        row("add_skill", Method::POST, "/v1/deployments/{d}/skills", skill, [401, 403, 201, 404]),
        row("list_skills", Method::GET, "/v1/deployments/{d}/skills", None, [401, 200, 200, 404]).token(200),
        row("get_skill", Method::GET, "/v1/deployments/{d}/skills/{s}", None, [401, 200, 200, 404]),
        row(
            "replace_skill",
            Method::PUT,
            "/v1/deployments/{d}/skills/{s}",
            Some(json!({})),
            [401, 403, 200, 404],
        ),
        row("delete_skill", Method::DELETE, "/v1/deployments/{d}/skills/{s}", None, [401, 403, 200, 404]),
        row("add_mcp_server", Method::POST, "/v1/deployments/{d}/mcp_servers", server, [401, 403, 201, 404]),
        row("list_mcp_servers", Method::GET, "/v1/deployments/{d}/mcp_servers", None, [401, 200, 200, 404]),
        row(
            "update_mcp_server",
            Method::PATCH,
            "/v1/deployments/{d}/mcp_servers/crm",
            Some(json!({})),
            [401, 403, 200, 404],
        ),
        row(
            "delete_mcp_server",
            Method::DELETE,
            "/v1/deployments/{d}/mcp_servers/crm",
            None,
            [401, 403, 200, 404],
        ),
        row("list_tools", Method::GET, "/v1/deployments/{d}/tools", None, [401, 200, 200, 404]).token(200),
        row(
            "update_tool",
            Method::PATCH,
            "/v1/deployments/{d}/tools/shell",
            Some(json!({})),
            [401, 403, 200, 404],
        ),
    ]
}

fn of_threads_and_runs() -> Vec<Row> {
    let message = Some(json!({"content": "hello"}));
    let title = Some(json!({"title": "Plans"}));
    vec![
        row("send_message", Method::POST, "/v1/deployments/{d}/messages", message, [401, 403, 202, 404])
            .token(202),
        row("stream_events", Method::GET, "/v1/deployments/{d}/events", None, [401, 200, 200, 404])
            .token(200),
        row("create_thread", Method::POST, "/v1/deployments/{d}/threads", None, [401, 403, 201, 404])
            .token(201),
        row("list_threads", Method::GET, "/v1/deployments/{d}/threads", None, [401, 200, 200, 404])
            .token(200),
        row("get_thread", Method::GET, "/v1/deployments/{d}/threads/{t}", None, [401, 200, 200, 404])
            .token(200),
        row("update_thread", Method::PATCH, "/v1/deployments/{d}/threads/{t}", title, [401, 403, 200, 404])
            .token(200),
        // The writer gets 409, because `{t}` is the default thread, which cannot be deleted.
        row("delete_thread", Method::DELETE, "/v1/deployments/{d}/threads/{t}", None, [401, 403, 409, 404])
            .token(409),
        row("list_runs", Method::GET, "/v1/deployments/{d}/runs", None, [401, 200, 200, 404]).token(200),
        row("get_run", Method::GET, "/v1/deployments/{d}/runs/{r}", None, [401, 200, 200, 404]).token(200),
        row("list_steps", Method::GET, "/v1/deployments/{d}/runs/{r}/steps", None, [401, 200, 200, 404])
            .token(200),
        row("cancel_run", Method::POST, "/v1/deployments/{d}/runs/{r}/cancel", None, [401, 403, 202, 404])
            .token(202),
    ]
}

fn of_steering() -> Vec<Row> {
    let answer = Some(json!({"decision": "approve"}));
    let (steering, approvals) = ("/v1/deployments/{d}/steering", "/v1/deployments/{d}/approvals");
    let (one_request, one_approval) =
        ("/v1/deployments/{d}/steering/{q}", "/v1/deployments/{d}/approvals/{a}");
    vec![
        row("list_all_steering", Method::GET, "/v1/steering", None, [401, 200, 200, 200]).token(200),
        row("list_steering", Method::GET, steering, None, [401, 200, 200, 404]).token(200),
        row("get_steering", Method::GET, one_request, None, [401, 200, 200, 404]).token(200),
        // The browser token is tested before the writer and answers the steering request. The writer then sends the
        // same answer again, which is allowed.
        row("answer_steering", Method::POST, one_request, answer, [401, 403, 200, 404]).token(200),
        row("list_approvals", Method::GET, approvals, None, [401, 200, 200, 404]).token(200),
        // The browser token is tested before the writer and withdraws the approval, so the writer gets 404.
        row("delete_approval", Method::DELETE, one_approval, None, [401, 403, 404, 404]).token(200),
        row("delete_approvals", Method::DELETE, approvals, None, [401, 403, 200, 404]).token(200),
    ]
}

fn of_files() -> Vec<Row> {
    vec![
        row(
            "write_file",
            Method::PUT,
            "/v1/deployments/{d}/files?path=b",
            Some(json!("text")),
            [401, 403, 200, 404],
        )
        .token(200),
        // The browser token is tested before the writer and deletes the file, so the writer gets 404.
        row("delete_file", Method::DELETE, "/v1/deployments/{d}/files?path=b", None, [401, 403, 404, 404])
            .token(200),
        row("list_files", Method::GET, "/v1/deployments/{d}/files", None, [401, 200, 200, 404]).token(200),
        row(
            "read_file",
            Method::GET,
            "/v1/deployments/{d}/files/content?path=a.txt",
            None,
            [401, 200, 200, 404],
        )
        .token(200),
    ]
}

fn of_account() -> Vec<Row> {
    let for_reading = json!({"deployment_id": "{d}", "scopes": ["deployments:read"]});
    let secret = Some(json!({"name": "n", "value": "v"}));
    vec![
        row(
            "create_key",
            Method::POST,
            "/v1/keys",
            Some(json!({"name": "n", "scopes": ["usage:read"]})),
            [401, 403, 403, 201],
        )
        .admin(201),
        row("list_keys", Method::GET, "/v1/keys", None, [401, 403, 403, 200]).admin(200),
        row("revoke_key", Method::DELETE, "/v1/keys/{k}", None, [401, 403, 403, 404]).admin(200),
        row("create_token", Method::POST, "/v1/tokens", Some(for_reading), [401, 201, 201, 404]).admin(201),
        row("create_secret", Method::POST, "/v1/secrets", secret, [401, 403, 403, 201]).admin(201),
        row("list_secrets", Method::GET, "/v1/secrets", None, [401, 403, 403, 200]).admin(200),
        row("update_secret", Method::PATCH, "/v1/secrets/{x}", Some(json!({})), [401, 403, 403, 404])
            .admin(200),
        row("delete_secret", Method::DELETE, "/v1/secrets/{x}", None, [401, 403, 403, 404]).admin(200),
    ]
}

fn of_snapshots() -> Vec<Row> {
    vec![
        row("list_snapshots", Method::GET, "/v1/snapshots", None, [401, 200, 200, 200]),
        row("get_snapshot", Method::GET, "/v1/snapshots/{n}", None, [401, 200, 200, 404]),
        row("read_snapshot", Method::GET, "/v1/snapshots/{n}/content", None, [401, 200, 200, 404]),
        row("delete_snapshot", Method::DELETE, "/v1/snapshots/{n}", None, [401, 403, 200, 404]),
    ]
}

/// The resources that the placeholders of the access table stand for.
pub(crate) struct Fixture {
    deployment: Value,
    run: Value,
    skill: Value,
    key_id: KeyId,
    snapshot_id: SnapshotId,
    steering_id: SteeringId,
    approval_id: ApprovalId,
}

/// The id of the secret that the placeholder `{x}` stands for.
const SECRET: &str = "sec_acme";

impl Fixture {
    pub(crate) async fn new(world: &World) -> Self {
        let deployment = world.deployment().await;
        let run =
            world.post(&World::path(&deployment, "/messages"), &json!({"content": "first"})).await.json();
        let workspace = world.workspaces_dir.join(deployment["deployment_id"].as_str().unwrap());
        std::fs::create_dir_all(&workspace).unwrap();
        std::fs::write(workspace.join("a.txt"), "text").unwrap();
        let skill = json!({"name": "given", "source": "inline", "content": SKILL});
        let skill = world.post(&World::path(&deployment, "/skills"), &skill).await.json();
        let key_id = key_id_of(world, &world.key("default", &[Scope::UsageRead]).await).await;
        let secret = json!({"name": "n", "value": "v", "secret_id": SECRET});
        world.call(&world.admin, Method::POST, "/v1/secrets", Some(&secret)).await;
        let snapshot_id = snapshots::ready(world, "acme", &[("kept.txt", "text")]).await;
        let steering_id = steering::ask(world, &run, SteeringKind::Approval).await;
        let approval_id = steering::approve(world, &run, "ls").await;
        Self { deployment, run, skill, key_id, snapshot_id, steering_id, approval_id }
    }

    /// Replaces the deployment by a new one whose provisioning has failed, so that it can be retried.
    pub(crate) async fn fail_provisioning(&mut self, world: &World) {
        let mut body = minimal();
        body["restore_snapshot"] = self.snapshot_id.to_string().into();
        self.deployment = world.post("/v1/deployments", &body).await.json();
        world.fail_provisioning(&self.deployment).await;
    }

    pub(crate) fn path(&self, row: &Row) -> String {
        row.path
            .replace("{d}", self.deployment["deployment_id"].as_str().unwrap())
            .replace("{t}", self.deployment["thread_id"].as_str().unwrap())
            .replace("{r}", self.run["run_id"].as_str().unwrap())
            .replace("{s}", self.skill["skill_id"].as_str().unwrap())
            .replace("{k}", &self.key_id.to_string())
            .replace("{n}", &self.snapshot_id.to_string())
            .replace("{q}", &self.steering_id.to_string())
            .replace("{a}", &self.approval_id.to_string())
            .replace("{x}", SECRET)
    }

    pub(crate) fn body(&self, row: &Row) -> Option<String> {
        let deployment_id = self.deployment["deployment_id"].as_str().unwrap();
        row.body.as_ref().map(|body| body.to_string().replace("{d}", deployment_id))
    }
}

#[tokio::test]
async fn every_operation_returns_the_tables_status_to_every_actor() {
    let world = World::new().await;
    let fixture = Fixture::new(&world).await;
    let token = world.token(&fixture.deployment).await;
    for row in table() {
        let (path, body) = (fixture.path(&row), fixture.body(&row));
        let actors = [
            ("anonymous", String::new(), row.anonymous),
            ("reader", world.reader.clone(), row.reader),
            ("token", token.clone(), row.token),
            ("other_account", world.other_account.clone(), row.other_account),
            ("writer", world.writer.clone(), row.writer),
        ];
        let admin = row.admin.map(|expected| ("admin", world.admin.clone(), expected));
        for (actor, key, expected) in actors.into_iter().chain(admin) {
            // The response body is not read, because an event stream never ends.
            let status = status(&world, &key, &row.method, &path, body.clone()).await;
            assert_eq!(status.as_u16(), expected, "{actor} calls {}", row.operation);
        }
    }
}

async fn status(world: &World, key: &str, method: &Method, path: &str, body: Option<String>) -> StatusCode {
    use axum::body::Body;
    let mut request = http::Request::builder().method(method.clone()).uri(path);
    if !key.is_empty() {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    if body.is_some() {
        request = request.header("content-type", "application/json");
    }
    world.send(request.body(body.map_or_else(Body::empty, Body::from)).unwrap()).await.status()
}

#[test]
fn the_table_has_every_operation_of_the_document() {
    let document: Value = serde_json::from_str(&herm_api::openapi()).unwrap();
    let mut in_document = BTreeSet::new();
    for operations in document["paths"].as_object().unwrap().values() {
        for operation in operations.as_object().unwrap().values() {
            in_document.extend(operation["operationId"].as_str().map(str::to_owned));
        }
    }
    let in_table: BTreeSet<String> = table().iter().map(|row| row.operation.to_owned()).collect();
    assert_eq!(in_table, in_document);
}

#[tokio::test]
async fn a_key_that_is_malformed_unknown_expired_or_revoked_is_rejected() {
    let world = World::new().await;
    let expiring = NewKey {
        name: "short".to_owned(),
        account: "default".to_owned(),
        scopes: vec![Scope::Admin],
        deployment_id: None,
        customer_id: None,
        expires_at: Some(herm_types::Clock::now(&*world.clock).plus_ms(1000)),
    };
    let (key, _) = world.limited_key(expiring).await;
    let status =
        async |key: &str| world.call(key, Method::GET, "/v1/deployments", None).await.status.as_u16();
    assert_eq!(status(&key).await, 200);
    world.clock.advance_ms(1000);
    assert_eq!(status(&key).await, 401, "expired");
    let (revoked, key_id) = (world.writer.clone(), key_id_of(&world, &world.writer).await);
    assert_eq!(status(&revoked).await, 200);
    assert!(herm_app::keys::revoke(&world.store, key_id).await.unwrap());
    assert_eq!(status(&revoked).await, 401, "revoked");
    assert_eq!(status("herm_sk_nonsense").await, 401, "malformed");
    let unknown = World::new().await.writer;
    assert_eq!(status(&unknown).await, 401, "key of another server");
}

async fn key_id_of(world: &World, key: &str) -> KeyId {
    world.app.authenticate(key).await.unwrap().key().key_id
}

#[tokio::test]
async fn a_restricted_key_cannot_access_other_deployments() {
    let world = World::new().await;
    let own = world.deployment().await;
    let mut other = minimal();
    other["customer_id"] = "other".into();
    let other = world.post("/v1/deployments", &other).await.json();
    let new = |customer_id: Option<&str>, deployment_id| NewKey {
        name: "limited".to_owned(),
        account: "default".to_owned(),
        scopes: vec![Scope::DeploymentsRead, Scope::DeploymentsWrite],
        deployment_id,
        customer_id: customer_id.map(str::to_owned),
        expires_at: None,
    };
    let (of_customer, _) = world.limited_key(new(Some("acme"), None)).await;
    let id = own["deployment_id"].as_str().unwrap().parse().unwrap();
    let (of_deployment, _) = world.limited_key(new(None, Some(id))).await;
    for key in [&of_customer, &of_deployment] {
        let listed = world.call(key, Method::GET, "/v1/deployments", None).await.json();
        assert_eq!(listed["data"].as_array().unwrap().len(), 1);
        assert_eq!(listed["data"][0]["deployment_id"], own["deployment_id"]);
        let filtered = world.call(key, Method::GET, "/v1/deployments?customer_id=other", None).await.json();
        assert_eq!(filtered["data"], json!([]));
        let outside = world.call(key, Method::GET, &World::path(&other, ""), None).await;
        assert_eq!(outside.status_and_code(), (404, "not_found".to_owned()));
    }
    let mut of_other = minimal();
    of_other["customer_id"] = "other".into();
    let create = async |key: &str, body: &Value| {
        world.call(key, Method::POST, "/v1/deployments", Some(body)).await.status.as_u16()
    };
    assert_eq!(create(&of_customer, &minimal()).await, 201);
    assert_eq!(create(&of_customer, &of_other).await, 403);
    assert_eq!(create(&of_deployment, &minimal()).await, 403);
}
