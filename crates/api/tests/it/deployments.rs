//! `/v1/deployments`: made with their defaults, refused with all their faults, listed in pages.

use std::collections::BTreeSet;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use herm_types::sandbox::SandboxType;

use crate::world::{ABSENT_IMAGE, SandboxFallback, World, minimal};

#[tokio::test]
async fn a_deployment_is_ready_with_every_default() {
    let world = World::new().await;
    let made = world.deployment().await;
    let id = made["deployment_id"].as_str().unwrap();
    let expected = json!({
        "deployment_id": id,
        "customer_id": "acme",
        "name": "Ada",
        "runtime": "hermes",
        "status": "ready",
        "model": "anthropic/claude-sonnet-4.5",
        "system_prompt": "Be brief.",
        "thread_id": made["thread_id"],
        "filesystem": {"workspace_path": "/workspace", "persistent": true},
        "events": {"transport": "sse", "url": format!("http://herm.example/v1/deployments/{id}/events")},
        "sandbox": {"enabled": true, "type": "docker", "persistent_filesystem": true, "engine": "local", "own_user": false},
        "mcp_servers": [],
        "skills": [],
        "secrets": {},
        "features": {
            "memory": true, "dreaming": false, "automations": true, "steering": true, "filesystem_webhooks": false,
        },
        "metadata": {},
        "budget": {},
        "steering": {"expires_after_s": null, "on_expiry": "deny"},
        "dreaming": {"mode": "auto"},
        "fallback_models": [],
        "created_at": "2027-01-15T08:00:00.000000Z",
        "updated_at": "2027-01-15T08:00:00.000000Z",
    });
    assert_eq!(made, expected);
    assert_eq!(world.get(&World::path(&made, "")).await.json(), expected);
}

#[tokio::test]
async fn every_field_is_kept_as_it_was_given() {
    let world = World::new().await;
    let mut body = minimal();
    body["runtime"] = "hermes".into();
    body["model"] = "openrouter/vendor/model".into();
    body["sandbox"] = json!({"enabled": false, "type": "local"});
    body["features"] = json!({"memory": false, "steering": null});
    body["metadata"] = json!({"team": "blue", "é": ""});
    body["skills"] = json!([]);
    body["budget"] = json!({"max_credits_per_run": 2.5, "max_credits_per_day": 100});
    body["steering"] = json!({"expires_after_s": 3600, "on_expiry": "fail"});
    body["dreaming"] = json!({"mode": "review"});
    body["fallback_models"] = json!(["openai/gpt-5", "demo/tour"]);
    let more = json!({
        "image": "registry.example.com/agents:1", "cpu": 0.5, "memory_mb": 512, "disk_mb": 1024, "idle_timeout_s": 60,
        "egress": {"mode": "allowlist", "hosts": ["api.example.com", "*.example.org"]},
    });
    body["sandbox"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let made = world.post("/v1/deployments", &body).await.json();
    assert_eq!(made["model"], "openrouter/vendor/model");
    let mut sandbox = json!({"enabled": false, "type": "local", "persistent_filesystem": true, "engine": null, "own_user": null});
    sandbox.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    assert_eq!(made["sandbox"], sandbox);
    for field in ["budget", "steering", "dreaming", "fallback_models"] {
        assert_eq!(made[field], body[field], "{field}");
    }
    assert_eq!((&made["features"]["memory"], &made["features"]["steering"]), (&json!(false), &json!(true)));
    assert_eq!(made["metadata"], body["metadata"]);
}

#[tokio::test]
async fn all_faults_of_a_body_are_reported_at_once() {
    let world = World::new().await;
    let body = json!({
        "customer_id": "",
        "name": "n".repeat(257),
        "system_prompt": 7,
        "runtime": "zeus",
        "model": "nobody/knows",
        "sandbox": {
            "enabled": "yes", "type": "tent", "cpu": 0, "memory_mb": 1.5, "egress": {"hosts": ["a b"]}, "nonsense": 1,
        },
        "budget": {"max_credits_per_run": -1},
        "steering": {"on_expiry": "shrug"},
        "dreaming": "often",
        "fallback_models": ["nobody/knows"],
        "mcp_servers": [{"name": "a.b", "url": "ftp://x"}, 7],
        "secrets": {"A-B": "sec_x", "TOKEN": "nonsense"},
        "features": {"flying": true},
        "metadata": {"a": 1},
        "skills": [{"source": "inline"}],
        "surprise": true,
    });
    let answer = world.post("/v1/deployments", &body).await;
    assert_eq!(answer.refusal(), (400, "validation_error".to_owned()));
    let expected = [
        "customer_id",
        "name",
        "system_prompt",
        "runtime",
        "model",
        "sandbox.enabled",
        "sandbox.type",
        "sandbox.cpu",
        "sandbox.memory_mb",
        "sandbox.egress.hosts[0]",
        "sandbox.egress.mode",
        "sandbox.nonsense",
        "features.flying",
        "metadata.a",
        "secrets.A-B",
        "secrets.TOKEN",
        "mcp_servers[0].name",
        "mcp_servers[0].url",
        "mcp_servers[1]",
        "skills[0].name",
        "skills[0].content",
        "budget.max_credits_per_run",
        "steering.on_expiry",
        "dreaming",
        "fallback_models[0]",
        "surprise",
    ];
    assert_eq!(answer.faults().into_iter().collect::<BTreeSet<_>>(), expected.map(str::to_owned).into());
}

#[tokio::test]
async fn missing_fields_are_named() {
    let world = World::new().await;
    assert_eq!(
        world.post("/v1/deployments", &json!({})).await.faults(),
        ["customer_id", "name", "system_prompt"]
    );
    assert_eq!(world.post("/v1/deployments", &json!([1])).await.faults(), [""]);
}

#[tokio::test]
async fn the_limits_are_what_the_contract_says() {
    let world = World::new().await;
    let mut body = minimal();
    body["name"] = "é".repeat(256).into();
    body["system_prompt"] = "é".repeat(100_000).into();
    body["metadata"] =
        (0..16).map(|number| (format!("k{number}"), json!("v"))).collect::<serde_json::Map<_, _>>().into();
    assert_eq!(world.post("/v1/deployments", &body).await.status, StatusCode::CREATED);
    body["system_prompt"] = "é".repeat(100_001).into();
    body["metadata"]["k16"] = "v".into();
    assert_eq!(world.post("/v1/deployments", &body).await.faults(), ["system_prompt", "metadata"]);
}

#[tokio::test]
async fn a_secret_that_does_not_exist_is_named() {
    let world = World::new().await;
    let mut body = minimal();
    body["secrets"] = json!({"TOKEN": "sec_01h455vb4pex5vsknk084sn02q"});
    let answer = world.post("/v1/deployments", &body).await;
    assert_eq!(answer.refusal(), (422, "invalid_secret_ref".to_owned()));
    assert!(answer.json()["message"].as_str().unwrap().contains("secrets.TOKEN"));
}

#[tokio::test]
async fn docker_is_refused_where_the_operator_wants_no_other() {
    let world = World::with(SandboxFallback::Refuse, &[]).await;
    let refused = world.post("/v1/deployments", &minimal()).await;
    assert_eq!(refused.refusal(), (503, "unavailable".to_owned()));
    assert!(refused.json()["message"].as_str().unwrap().contains("no engine answers: start one"));
    let mut body = minimal();
    body["sandbox"] = json!({"type": "local"});
    assert_eq!(world.post("/v1/deployments", &body).await.status, StatusCode::CREATED);
}

/// Nothing takes gVisor's place: who asks for it wants a kernel of its own.
#[tokio::test]
async fn a_sandbox_has_the_engine_it_asks_for_or_docker_what_the_operator_says() {
    use SandboxType::{Docker, Gvisor};
    for (engines, kind, engine) in [
        (&[][..], "docker", Some("local")),
        (&[], "local", Some("local")),
        (&[], "gvisor", None),
        (&[Docker], "docker", Some("docker")),
        (&[Docker], "local", Some("local")),
        (&[Docker], "gvisor", None),
        (&[Docker, Gvisor], "gvisor", Some("gvisor")),
    ] {
        let world = World::with(SandboxFallback::Local, engines).await;
        let mut body = minimal();
        body["sandbox"] = json!({"type": kind});
        let answer = world.post("/v1/deployments", &body).await;
        match engine {
            Some(engine) => assert_eq!(answer.json()["sandbox"]["engine"], engine, "{kind} with {engines:?}"),
            None => assert_eq!(answer.refusal(), (503, "unavailable".to_owned()), "{kind} with {engines:?}"),
        }
    }
}

/// Which engine is really used is told, and what it gives: an operator may not know what the server can do here.
#[tokio::test]
async fn a_sandbox_that_shares_the_servers_user_says_so() {
    let world = World::with(SandboxFallback::Local, &[SandboxType::Docker]).await;
    for (sandbox, own_user) in [
        (json!({"type": "local"}), json!(false)),
        (json!({"type": "docker"}), json!(true)),
        (json!({"enabled": false}), Value::Null),
    ] {
        let mut body = minimal();
        body["sandbox"] = sandbox;
        let made = world.post("/v1/deployments", &body).await.json();
        assert_eq!(made["sandbox"]["own_user"], own_user, "{made}");
        assert_eq!(world.get(&World::path(&made, "")).await.json()["sandbox"], made["sandbox"]);
        let patched = world
            .call(&world.writer, Method::PATCH, &World::path(&made, ""), Some(&json!({"name": "Other"})))
            .await;
        assert_eq!(patched.json()["sandbox"], made["sandbox"]);
    }
}

/// What the server is configured with is the operator's to have there; what a deployment names is fetched.
#[tokio::test]
async fn an_image_that_is_not_there_is_waited_for_and_other_images_are_not() {
    for fallback in [SandboxFallback::Local, SandboxFallback::Refuse] {
        let world = World::with(fallback, &[SandboxType::Docker]).await;
        let mut body = minimal();
        body["sandbox"] = json!({"image": "registry.example/present:1"});
        let present = world.post("/v1/deployments", &body).await.json();
        assert_eq!((&present["status"], &present["sandbox"]["engine"]), (&json!("ready"), &json!("docker")));
        body["sandbox"] = json!({"image": ABSENT_IMAGE});
        let absent = world.post("/v1/deployments", &body).await;
        assert_eq!(absent.status, StatusCode::CREATED);
        let absent = absent.json();
        assert_eq!(
            (&absent["status"], &absent["sandbox"]["engine"]),
            (&json!("provisioning"), &json!("docker"))
        );
        let early = world.post(&World::path(&absent, "/messages"), &json!({"content": "Hello?"})).await;
        assert_eq!(early.refusal(), (409, "deployment_not_ready".to_owned()));
        body["sandbox"] = json!({"image": ABSENT_IMAGE, "enabled": false});
        let without = world.post("/v1/deployments", &body).await.json();
        assert_eq!(without["status"], "ready", "nothing runs in it");
        body["sandbox"] = json!({"image": ABSENT_IMAGE, "type": "local"});
        assert_eq!(world.post("/v1/deployments", &body).await.json()["status"], "ready", "it has no images");
    }
}

#[tokio::test]
async fn an_update_that_names_another_image_leaves_the_agent_at_work() {
    let world = World::with(SandboxFallback::Local, &[SandboxType::Docker]).await;
    let made = world.deployment().await;
    let patch = json!({"sandbox": {"image": ABSENT_IMAGE}});
    let patched =
        world.call(&world.writer, Method::PATCH, &World::path(&made, ""), Some(&patch)).await.json();
    assert_eq!((&patched["status"], &patched["sandbox"]["image"]), (&json!("ready"), &json!(ABSENT_IMAGE)));
    let sent = world.post(&World::path(&made, "/messages"), &json!({"content": "Hello?"})).await;
    assert_eq!(sent.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn pages_neither_repeat_nor_skip() {
    let world = World::new().await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(world.deployment().await["deployment_id"].clone());
    }
    let (mut seen, mut path) = (Vec::new(), "/v1/deployments?limit=2".to_owned());
    loop {
        let page = world.get(&path).await.json();
        seen.extend(page["data"].as_array().unwrap().iter().map(|item| item["deployment_id"].clone()));
        world.deployment().await;
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/deployments?limit=2&cursor={cursor}");
    }
    made.reverse();
    assert_eq!(seen, made);
}

#[tokio::test]
async fn a_list_has_what_the_contract_says_and_filters() {
    let world = World::new().await;
    let made = world.deployment().await;
    let listed = world.get("/v1/deployments?customer_id=acme&status=ready").await.json();
    let fields = ["deployment_id", "customer_id", "name", "runtime", "status", "model", "created_at"];
    let expected: Value = fields
        .iter()
        .map(|field| ((*field).to_owned(), made[*field].clone()))
        .collect::<serde_json::Map<_, _>>()
        .into();
    assert_eq!(listed, json!({"data": [expected], "next_cursor": null}));
    for path in ["/v1/deployments?customer_id=nobody", "/v1/deployments?status=error"] {
        assert_eq!(world.get(path).await.json()["data"], json!([]));
    }
    for (query, fault) in [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("cursor=nonsense", "cursor"),
        ("status=odd", "status"),
        ("color=red", "color"),
        ("limit=1&limit=2", "limit"),
    ] {
        let refused = world.get(&format!("/v1/deployments?{query}")).await;
        assert_eq!((refused.refusal().0, refused.faults()), (400, vec![fault.to_owned()]), "{query}");
    }
}

#[tokio::test]
async fn a_deleted_deployment_is_gone_at_once() {
    let world = World::new().await;
    let made = world.deployment().await;
    let run = world.post(&World::path(&made, "/messages"), &json!({"content": "hi"})).await.json();
    let deleted = world.call(&world.writer, Method::DELETE, &World::path(&made, ""), None).await;
    assert_eq!(deleted.status, StatusCode::OK);
    assert_eq!(deleted.json(), json!({"deployment_id": made["deployment_id"], "status": "deleted"}));
    let run_path = format!("/runs/{}", run["run_id"].as_str().unwrap());
    for rest in ["", "/events", "/runs", run_path.as_str(), "/files"] {
        assert_eq!(world.get(&World::path(&made, rest)).await.refusal().0, 404, "{rest}");
    }
    let again = world.call(&world.writer, Method::DELETE, &World::path(&made, ""), None).await;
    assert_eq!(again.refusal().0, 404);
    let listed = world.get("/v1/deployments").await.json();
    assert_eq!(listed["data"], json!([]));
}
