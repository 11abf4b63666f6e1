//! Tests of pagination for every list operation, that is, for every operation in the OpenAPI document that has a
//! cursor.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use herm_api::{ModelProvider, Options, router};
use herm_store::journal::{self, Position};
use herm_types::run::StepKind;
use herm_types::steering::SteeringKind;
use http::{Method, Request};
use serde_json::{Value, json};

use crate::world::{ApiResponse, World, minimal, read};
use crate::{snapshots, steering};

/// A list operation. `id` is the JSON pointer to the id in a row. `deleted_at` is the path of the DELETE request that
/// removes a row from the list, or `None` if rows cannot be removed.
struct List {
    operation: &'static str,
    path: &'static str,
    id: &'static str,
    deleted_at: Option<&'static str>,
}

/// All list operations. In paths, `{d}` stands for the id of a deployment, `{r}` for the id of a run, and `{id}` for
/// the id of a row in the list.
const LISTS: [List; 12] = [
    List {
        operation: "list_deployments",
        path: "/v1/deployments",
        id: "/deployment_id",
        deleted_at: Some("/v1/deployments/{id}"),
    },
    // Keys cannot be removed from the list, because a revoked key remains in it.
    List { operation: "list_keys", path: "/v1/keys", id: "/key_id", deleted_at: None },
    List {
        operation: "list_secrets",
        path: "/v1/secrets",
        id: "/secret_id",
        deleted_at: Some("/v1/secrets/{id}"),
    },
    List {
        operation: "list_snapshots",
        path: "/v1/snapshots",
        id: "/snapshot_id",
        deleted_at: Some("/v1/snapshots/{id}"),
    },
    List { operation: "list_models", path: "/v1/models", id: "/provider", deleted_at: None },
    List {
        operation: "list_threads",
        path: "/v1/deployments/{d}/threads",
        id: "/thread_id",
        deleted_at: Some("/v1/deployments/{d}/threads/{id}"),
    },
    List { operation: "list_runs", path: "/v1/deployments/{d}/runs", id: "/run_id", deleted_at: None },
    List {
        operation: "list_steps",
        path: "/v1/deployments/{d}/runs/{r}/steps",
        id: "/name",
        deleted_at: None,
    },
    List { operation: "list_all_steering", path: "/v1/steering", id: "/steering_id", deleted_at: None },
    List {
        operation: "list_steering",
        path: "/v1/deployments/{d}/steering",
        id: "/steering_id",
        deleted_at: None,
    },
    List {
        operation: "list_approvals",
        path: "/v1/deployments/{d}/approvals",
        id: "/approval_id",
        deleted_at: Some("/v1/deployments/{d}/approvals/{id}"),
    },
    List { operation: "stream_events", path: "/v1/deployments/{d}/events", id: "/id", deleted_at: None },
];

/// A server, and the deployment and the run whose lists the tests read.
struct Fixture {
    world: World,
    deployment_id: String,
    run_id: String,
    /// The response of `send_message` for the message that started the run.
    run: Value,
    /// The number of approvals added so far. Each approval must be for a different command, so the command contains
    /// this number.
    approvals: AtomicU64,
}

impl Fixture {
    async fn new() -> Self {
        let mut world = World::new().await;
        let provider = |number| ModelProvider {
            provider: format!("provider_{number}"),
            models: Vec::new(),
            has_key: true,
        };
        let providers = (0..9).map(provider).collect();
        world.router = router(world.app.clone(), Options { providers, ..Options::default() });
        let deployment = world.deployment().await;
        let run =
            world.post(&World::path(&deployment, "/messages"), &json!({"content": "first"})).await.json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (deployment_id, run_id) = (text(&deployment["deployment_id"]), text(&run["run_id"]));
        Self { world, deployment_id, run_id, run, approvals: AtomicU64::new(0) }
    }

    fn path(&self, template: &str) -> String {
        template.replace("{d}", &self.deployment_id).replace("{r}", &self.run_id)
    }

    /// Adds a row to the list that `operation` returns. `number` is the position of the row among the added rows,
    /// starting at 0.
    async fn add(&self, operation: &str, number: i64) {
        let post = async |path: &str, body: Value| {
            let response =
                self.world.call(&self.world.admin, Method::POST, &self.path(path), Some(&body)).await;
            assert!(response.status.is_success(), "{}", response.json());
        };
        match operation {
            // No row can be added, because the listed models come from the configuration.
            "list_models" => {}
            "list_deployments" => post("/v1/deployments", minimal()).await,
            "list_keys" => post("/v1/keys", json!({"name": "n", "scopes": ["usage:read"]})).await,
            "list_secrets" => post("/v1/secrets", json!({"name": "n", "value": "v"})).await,
            "list_snapshots" => {
                snapshots::ready(&self.world, "acme", &[]).await;
            }
            "list_threads" => post("/v1/deployments/{d}/threads", json!({})).await,
            "list_runs" | "stream_events" => {
                let body = json!({"content": "hi", "thread_id": "new"});
                post("/v1/deployments/{d}/messages", body).await;
            }
            "list_steps" => self.add_step(number).await,
            "list_all_steering" | "list_steering" => {
                steering::ask(&self.world, &self.run, SteeringKind::Question).await;
            }
            "list_approvals" => {
                let number = self.approvals.fetch_add(1, Ordering::Relaxed);
                steering::approve(&self.world, &self.run, &format!("command {number}")).await;
            }
            other => panic!("add a way to create a row of {other} here"),
        }
    }

    async fn add_step(&self, number: i64) {
        // The listed rows are tool calls. This test adds three to each step, so `number` determines the step number and
        // the call number.
        let position =
            Position { run_id: self.run_id.parse().unwrap(), step_no: number / 3 + 1, call_no: number % 3 };
        let (kind, name) = (StepKind::Tool, format!("tool_{number}"));
        let add = self.world.store.transaction("add_step", move |tx| {
            Box::pin(async move { journal::record_intent(tx, position, kind, &name, "{}").await })
        });
        add.await.unwrap();
    }

    async fn page(&self, list: &List, query: &str) -> ApiResponse {
        let request = Request::builder()
            .uri(format!("{}?{query}", self.path(list.path)))
            .header("accept", "application/json")
            .header("authorization", format!("Bearer {}", self.world.admin));
        read(self.world.send(request.body(Body::empty()).unwrap()).await).await
    }

    /// Reads all pages of a list, with `limit` rows per page, and returns the ids of all rows. Between two pages, calls
    /// `between` with the id of the last row read.
    async fn read_all(&self, list: &List, limit: usize, between: impl AsyncFn(&str)) -> Vec<String> {
        let (mut ids, mut query) = (Vec::new(), format!("limit={limit}"));
        loop {
            let page = self.page(list, &query).await.json();
            let rows = page["data"].as_array().unwrap();
            assert!(rows.len() <= limit);
            ids.extend(rows.iter().map(|row| row.pointer(list.id).unwrap().as_str().unwrap().to_owned()));
            let Some(cursor) = page["next_cursor"].as_str() else { return ids };
            assert_eq!(rows.len(), limit, "{}: a page before the last is full", list.operation);
            between(ids.last().unwrap()).await;
            query = format!("limit={limit}&cursor={cursor}");
        }
    }
}

#[tokio::test]
async fn pages_of_any_size_contain_every_row_once() {
    let fixture = Fixture::new().await;
    for list in &LISTS {
        for number in 0..7 {
            fixture.add(list.operation, number).await;
        }
        let whole = fixture.read_all(list, 100, async |_| ()).await;
        assert!(whole.len() >= 7, "{}: {whole:?}", list.operation);
        assert_eq!(whole.iter().collect::<BTreeSet<_>>().len(), whole.len(), "{}: {whole:?}", list.operation);
        for limit in [1, 2, 3] {
            assert_eq!(
                fixture.read_all(list, limit, async |_| ()).await,
                whole,
                "{} by {limit}",
                list.operation
            );
        }
    }
}

#[tokio::test]
async fn rows_added_or_deleted_between_pages_do_not_shift_other_rows() {
    let fixture = Fixture::new().await;
    for list in &LISTS {
        for number in 0..9 {
            fixture.add(list.operation, number).await;
        }
        let before = fixture.read_all(list, 100, async |_| ()).await;
        let added = std::cell::Cell::new(9);
        let pages = fixture
            .read_all(list, 2, async |last: &str| {
                // The number of added rows is limited. Otherwise, the test would never end for lists to which new rows
                // are appended.
                if added.get() < 15 {
                    fixture.add(list.operation, added.get()).await;
                    added.set(added.get() + 1);
                }
                // Deletes the row to which the cursor for the next page refers.
                if let Some(template) = list.deleted_at {
                    let path = fixture.path(template).replace("{id}", last);
                    let deleted = fixture.world.call(&fixture.world.admin, Method::DELETE, &path, None).await;
                    assert!([200, 409].contains(&deleted.status.as_u16()), "{}", deleted.json());
                }
            })
            .await;
        let unique: BTreeSet<&String> = pages.iter().collect();
        assert_eq!(unique.len(), pages.len(), "{}: a row was listed twice", list.operation);
        let missed: Vec<&String> = before.iter().filter(|id| !unique.contains(id)).collect();
        assert!(missed.is_empty(), "{}: {missed:?} were skipped", list.operation);
    }
}

#[tokio::test]
async fn an_invalid_limit_or_cursor_is_rejected() {
    let fixture = Fixture::new().await;
    for list in &LISTS {
        for limit in ["0", "-1", "101", "1.5", "ten", "", "99999999999999999999", "1&limit=2"] {
            let rejected = fixture.page(list, &format!("limit={limit}")).await;
            assert_eq!(
                rejected.status_and_code(),
                (400, "validation_error".to_owned()),
                "{} {limit}",
                list.operation
            );
            assert_eq!(rejected.error_paths(), ["limit"]);
        }
        for cursor in
            ["x", "", "dep_", "thr_01h455vb4pex5vsknk084sn02", "-1", "0.x", "evt_-1", "%F0%9F%99%82"]
        {
            let rejected = fixture.page(list, &format!("cursor={cursor}")).await;
            assert_eq!(
                rejected.status_and_code(),
                (400, "validation_error".to_owned()),
                "{} {cursor}",
                list.operation
            );
            assert_eq!(rejected.error_paths(), ["cursor"]);
        }
        assert_eq!(
            fixture.page(list, "limit=0&cursor=x&page=2").await.error_paths(),
            ["limit", "cursor", "page"]
        );
    }
}

#[test]
fn every_operation_with_a_cursor_is_tested_here() {
    let document: Value = serde_json::from_str(&herm_api::openapi()).unwrap();
    let operations = document["paths"].as_object().unwrap().values();
    let operations = operations.flat_map(|path| path.as_object().unwrap().values());
    let takes_cursor = |operation: &&Value| {
        operation["parameters"].as_array().is_some_and(|all| all.iter().any(|one| one["name"] == "cursor"))
    };
    let with_cursor: BTreeSet<&str> =
        operations.filter(takes_cursor).map(|operation| operation["operationId"].as_str().unwrap()).collect();
    assert_eq!(LISTS.iter().map(|list| list.operation).collect::<BTreeSet<_>>(), with_cursor);
}
