//! Lists, page by page: every operation of the OpenAPI document that takes a cursor.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use herm_api::{ModelProvider, Options, router};
use herm_store::journal::{self, Position};
use herm_types::run::StepKind;
use herm_types::steering::SteeringKind;
use http::{Method, Request};
use serde_json::{Value, json};

use crate::world::{Answer, World, minimal, read};
use crate::{snapshots, steering};

/// A list: where it is, what tells its rows apart, and whether a row of it can be deleted.
struct List {
    operation: &'static str,
    path: &'static str,
    id: &'static str,
    deleted_at: Option<&'static str>,
}

/// `{d}` and `{r}` stand for a deployment and a run, `{id}` for a row.
const LISTS: [List; 12] = [
    List {
        operation: "list_deployments",
        path: "/v1/deployments",
        id: "/deployment_id",
        deleted_at: Some("/v1/deployments/{id}"),
    },
    // A revoked key stays in the list.
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

/// A deployment and a run of it, below which the lists are.
struct Ground {
    world: World,
    deployment_id: String,
    run_id: String,
    /// The message's answer.
    run: Value,
    /// Approvals that were added: there is one for each command.
    added: AtomicU64,
}

impl Ground {
    async fn new() -> Self {
        let mut world = World::new().await;
        let provider = |number| ModelProvider {
            provider: format!("provider_{number}"),
            models: Vec::new(),
            has_key: true,
        };
        let providers = (0..9).map(provider).collect();
        world.router = router(world.app.clone(), Options { providers, ..Options::default() });
        let made = world.deployment().await;
        let run = world.post(&World::path(&made, "/messages"), &json!({"content": "first"})).await.json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (deployment_id, run_id) = (text(&made["deployment_id"]), text(&run["run_id"]));
        Self { world, deployment_id, run_id, run, added: AtomicU64::new(0) }
    }

    fn path(&self, template: &str) -> String {
        template.replace("{d}", &self.deployment_id).replace("{r}", &self.run_id)
    }

    /// Adds a row, the `number`th, to a list.
    async fn add(&self, operation: &str, number: i64) {
        let post = async |path: &str, body: Value| {
            let answer =
                self.world.call(&self.world.admin, Method::POST, &self.path(path), Some(&body)).await;
            assert!(answer.status.is_success(), "{}", answer.json());
        };
        match operation {
            // The configuration's: all are there from the beginning.
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
                let number = self.added.fetch_add(1, Ordering::Relaxed);
                steering::approve(&self.world, &self.run, &format!("command {number}")).await;
            }
            other => panic!("say here how a row of {other} is made"),
        }
    }

    async fn add_step(&self, number: i64) {
        // Three calls to each step.
        let position =
            Position { run_id: self.run_id.parse().unwrap(), step_no: number / 3 + 1, call_no: number % 3 };
        let (kind, name) = (StepKind::Tool, format!("tool_{number}"));
        let add = self.world.store.transaction("add_step", move |tx| {
            Box::pin(async move { journal::record_intent(tx, position, kind, &name, "{}").await })
        });
        add.await.unwrap();
    }

    async fn page(&self, list: &List, query: &str) -> Answer {
        let request = Request::builder()
            .uri(format!("{}?{query}", self.path(list.path)))
            .header("accept", "application/json")
            .header("authorization", format!("Bearer {}", self.world.admin));
        read(self.world.send(request.body(Body::empty()).unwrap()).await).await
    }

    /// All ids of a list, read by pages of `limit`; `between` happens after each page, and is told the page's last id.
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
async fn pages_of_any_size_hold_every_row_once() {
    let ground = Ground::new().await;
    for list in &LISTS {
        for number in 0..7 {
            ground.add(list.operation, number).await;
        }
        let whole = ground.read_all(list, 100, async |_| ()).await;
        assert!(whole.len() >= 7, "{}: {whole:?}", list.operation);
        assert_eq!(whole.iter().collect::<BTreeSet<_>>().len(), whole.len(), "{}: {whole:?}", list.operation);
        for limit in [1, 2, 3] {
            assert_eq!(
                ground.read_all(list, limit, async |_| ()).await,
                whole,
                "{} by {limit}",
                list.operation
            );
        }
    }
}

#[tokio::test]
async fn what_is_added_or_deleted_meanwhile_moves_no_row() {
    let ground = Ground::new().await;
    for list in &LISTS {
        for number in 0..9 {
            ground.add(list.operation, number).await;
        }
        let before = ground.read_all(list, 100, async |_| ()).await;
        let added = std::cell::Cell::new(9);
        let pages = ground
            .read_all(list, 2, async |last: &str| {
                // As many as a test that ends can add, where new rows come last.
                if added.get() < 15 {
                    ground.add(list.operation, added.get()).await;
                    added.set(added.get() + 1);
                }
                // The very row that the next page is asked for by.
                if let Some(template) = list.deleted_at {
                    let path = ground.path(template).replace("{id}", last);
                    let deleted = ground.world.call(&ground.world.admin, Method::DELETE, &path, None).await;
                    assert!([200, 409].contains(&deleted.status.as_u16()), "{}", deleted.json());
                }
            })
            .await;
        let unique: BTreeSet<&String> = pages.iter().collect();
        assert_eq!(unique.len(), pages.len(), "{}: a row came twice", list.operation);
        let missed: Vec<&String> = before.iter().filter(|id| !unique.contains(id)).collect();
        assert!(missed.is_empty(), "{}: {missed:?} were skipped", list.operation);
    }
}

#[tokio::test]
async fn a_limit_or_a_cursor_that_is_none_is_refused() {
    let ground = Ground::new().await;
    for list in &LISTS {
        for limit in ["0", "-1", "101", "1.5", "ten", "", "99999999999999999999", "1&limit=2"] {
            let refused = ground.page(list, &format!("limit={limit}")).await;
            assert_eq!(refused.refusal(), (400, "validation_error".to_owned()), "{} {limit}", list.operation);
            assert_eq!(refused.faults(), ["limit"]);
        }
        for cursor in
            ["x", "", "dep_", "thr_01h455vb4pex5vsknk084sn02", "-1", "0.x", "evt_-1", "%F0%9F%99%82"]
        {
            let refused = ground.page(list, &format!("cursor={cursor}")).await;
            assert_eq!(
                refused.refusal(),
                (400, "validation_error".to_owned()),
                "{} {cursor}",
                list.operation
            );
            assert_eq!(refused.faults(), ["cursor"]);
        }
        assert_eq!(ground.page(list, "limit=0&cursor=x&page=2").await.faults(), ["limit", "cursor", "page"]);
    }
}

#[test]
fn every_operation_with_a_cursor_is_here() {
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
