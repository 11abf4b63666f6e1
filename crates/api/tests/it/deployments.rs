//! Tests of `/v1/deployments`: creation, defaults, validation, listing and deletion.

use std::collections::BTreeSet;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use herm_types::sandbox::SandboxType;

use crate::world::{ABSENT_IMAGE, SandboxFallback, World, minimal};

#[tokio::test]
async fn a_new_deployment_is_ready_and_has_the_defaults() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let id = deployment["deployment_id"].as_str().unwrap();
    let expected = json!({
        "deployment_id": id,
        "customer_id": "acme",
        "name": "Ada",
        "runtime": "hermes",
        "status": "ready",
        "model": "anthropic/claude-sonnet-4.5",
        "system_prompt": "Be brief.",
        "thread_id": deployment["thread_id"],
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
    assert_eq!(deployment, expected);
    assert_eq!(world.get(&World::path(&deployment, "")).await.json(), expected);
}

#[tokio::test]
async fn every_field_is_stored_as_given() {
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
    let deployment = world.post("/v1/deployments", &body).await.json();
    assert_eq!(deployment["model"], "openrouter/vendor/model");
    let mut sandbox = json!({"enabled": false, "type": "local", "persistent_filesystem": true, "engine": null, "own_user": null});
    sandbox.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    assert_eq!(deployment["sandbox"], sandbox);
    for field in ["budget", "steering", "dreaming", "fallback_models"] {
        assert_eq!(deployment[field], body[field], "{field}");
    }
    assert_eq!(
        (&deployment["features"]["memory"], &deployment["features"]["steering"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(deployment["metadata"], body["metadata"]);
}

#[tokio::test]
async fn all_field_errors_of_a_body_are_reported_together() {
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
    let response = world.post("/v1/deployments", &body).await;
    assert_eq!(response.status_and_code(), (400, "validation_error".to_owned()));
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
    assert_eq!(
        response.error_paths().into_iter().collect::<BTreeSet<_>>(),
        expected.map(str::to_owned).into()
    );
}

#[tokio::test]
async fn missing_fields_are_listed() {
    let world = World::new().await;
    assert_eq!(
        world.post("/v1/deployments", &json!({})).await.error_paths(),
        ["customer_id", "name", "system_prompt"]
    );
    assert_eq!(world.post("/v1/deployments", &json!([1])).await.error_paths(), [""]);
}

#[tokio::test]
async fn fields_are_accepted_up_to_the_documented_limits() {
    let world = World::new().await;
    let mut body = minimal();
    body["name"] = "é".repeat(256).into();
    body["system_prompt"] = "é".repeat(100_000).into();
    body["metadata"] =
        (0..16).map(|number| (format!("k{number}"), json!("v"))).collect::<serde_json::Map<_, _>>().into();
    assert_eq!(world.post("/v1/deployments", &body).await.status, StatusCode::CREATED);
    body["system_prompt"] = "é".repeat(100_001).into();
    body["metadata"]["k16"] = "v".into();
    assert_eq!(world.post("/v1/deployments", &body).await.error_paths(), ["system_prompt", "metadata"]);
}

#[tokio::test]
async fn a_reference_to_a_missing_secret_is_rejected_with_its_name() {
    let world = World::new().await;
    let mut body = minimal();
    body["secrets"] = json!({"TOKEN": "sec_01h455vb4pex5vsknk084sn02q"});
    let response = world.post("/v1/deployments", &body).await;
    assert_eq!(response.status_and_code(), (422, "invalid_secret_ref".to_owned()));
    assert!(response.json()["message"].as_str().unwrap().contains("secrets.TOKEN"));
}

#[tokio::test]
async fn docker_is_rejected_if_unavailable_and_without_a_fallback() {
    let world = World::with(SandboxFallback::Refuse, &[]).await;
    let rejected = world.post("/v1/deployments", &minimal()).await;
    assert_eq!(rejected.status_and_code(), (503, "unavailable".to_owned()));
    assert!(rejected.json()["message"].as_str().unwrap().contains("the engine is not running; start it"));
    let mut body = minimal();
    body["sandbox"] = json!({"type": "local"});
    assert_eq!(world.post("/v1/deployments", &body).await.status, StatusCode::CREATED);
}

/// If `gvisor` is not available, it is never replaced by another engine, unlike `docker`. A client that requests
/// `gvisor` wants the isolation of a separate kernel.
#[tokio::test]
async fn a_sandbox_has_the_requested_engine_and_only_docker_falls_back() {
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
        let response = world.post("/v1/deployments", &body).await;
        match engine {
            Some(engine) => {
                assert_eq!(response.json()["sandbox"]["engine"], engine, "{kind} with {engines:?}");
            }
            None => assert_eq!(
                response.status_and_code(),
                (503, "unavailable".to_owned()),
                "{kind} with {engines:?}"
            ),
        }
    }
}

/// The field `own_user` is true if each workspace's sandbox runs as a separate operating system user, and `null` if the
/// deployment has no sandbox.
#[tokio::test]
async fn a_sandbox_that_shares_the_servers_user_has_own_user_false() {
    let world = World::with(SandboxFallback::Local, &[SandboxType::Docker]).await;
    for (sandbox, own_user) in [
        (json!({"type": "local"}), json!(false)),
        (json!({"type": "docker"}), json!(true)),
        (json!({"enabled": false}), Value::Null),
    ] {
        let mut body = minimal();
        body["sandbox"] = sandbox;
        let deployment = world.post("/v1/deployments", &body).await.json();
        assert_eq!(deployment["sandbox"]["own_user"], own_user, "{deployment}");
        assert_eq!(world.get(&World::path(&deployment, "")).await.json()["sandbox"], deployment["sandbox"]);
        let patched = world
            .call(
                &world.writer,
                Method::PATCH,
                &World::path(&deployment, ""),
                Some(&json!({"name": "Other"})),
            )
            .await;
        assert_eq!(patched.json()["sandbox"], deployment["sandbox"]);
    }
}

/// If the engine does not have the image of a new deployment, the deployment has the status `provisioning` while the
/// image is pulled.
#[tokio::test]
async fn a_deployment_is_provisioning_only_if_its_image_is_missing() {
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
        assert_eq!(early.status_and_code(), (409, "deployment_not_ready".to_owned()));
        body["sandbox"] = json!({"image": ABSENT_IMAGE, "enabled": false});
        let without = world.post("/v1/deployments", &body).await.json();
        assert_eq!(without["status"], "ready", "a disabled sandbox needs no image");
        body["sandbox"] = json!({"image": ABSENT_IMAGE, "type": "local"});
        assert_eq!(
            world.post("/v1/deployments", &body).await.json()["status"],
            "ready",
            "local sandboxes have no images"
        );
    }
}

#[tokio::test]
async fn changing_the_image_leaves_the_deployment_ready() {
    let world = World::with(SandboxFallback::Local, &[SandboxType::Docker]).await;
    let deployment = world.deployment().await;
    let patch = json!({"sandbox": {"image": ABSENT_IMAGE}});
    let patched =
        world.call(&world.writer, Method::PATCH, &World::path(&deployment, ""), Some(&patch)).await.json();
    assert_eq!((&patched["status"], &patched["sandbox"]["image"]), (&json!("ready"), &json!(ABSENT_IMAGE)));
    let sent = world.post(&World::path(&deployment, "/messages"), &json!({"content": "Hello?"})).await;
    assert_eq!(sent.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn pages_neither_repeat_nor_skip_deployments() {
    let world = World::new().await;
    let mut created = Vec::new();
    for _ in 0..5 {
        created.push(world.deployment().await["deployment_id"].clone());
    }
    let (mut seen, mut path) = (Vec::new(), "/v1/deployments?limit=2".to_owned());
    loop {
        let page = world.get(&path).await.json();
        seen.extend(page["data"].as_array().unwrap().iter().map(|item| item["deployment_id"].clone()));
        world.deployment().await;
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/deployments?limit=2&cursor={cursor}");
    }
    created.reverse();
    assert_eq!(seen, created);
}

#[tokio::test]
async fn deployments_are_listed_with_the_documented_fields_and_filters() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let listed = world.get("/v1/deployments?customer_id=acme&status=ready").await.json();
    let fields = ["deployment_id", "customer_id", "name", "runtime", "status", "model", "created_at"];
    let expected: Value = fields
        .iter()
        .map(|field| ((*field).to_owned(), deployment[*field].clone()))
        .collect::<serde_json::Map<_, _>>()
        .into();
    assert_eq!(listed, json!({"data": [expected], "next_cursor": null}));
    for path in ["/v1/deployments?customer_id=nobody", "/v1/deployments?status=error"] {
        assert_eq!(world.get(path).await.json()["data"], json!([]));
    }
    for (query, error) in [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("cursor=nonsense", "cursor"),
        ("status=odd", "status"),
        ("customer_id=", "customer_id"),
        ("color=red", "color"),
        ("limit=1&limit=2", "limit"),
    ] {
        let rejected = world.get(&format!("/v1/deployments?{query}")).await;
        assert_eq!(
            (rejected.status_and_code().0, rejected.error_paths()),
            (400, vec![error.to_owned()]),
            "{query}"
        );
    }
}

#[tokio::test]
async fn a_deleted_deployment_is_not_found_immediately() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let run = world.post(&World::path(&deployment, "/messages"), &json!({"content": "hi"})).await.json();
    let deleted = world.call(&world.writer, Method::DELETE, &World::path(&deployment, ""), None).await;
    assert_eq!(deleted.status, StatusCode::OK);
    assert_eq!(deleted.json(), json!({"deployment_id": deployment["deployment_id"], "status": "deleted"}));
    let run_path = format!("/runs/{}", run["run_id"].as_str().unwrap());
    for rest in ["", "/events", "/runs", run_path.as_str(), "/files"] {
        assert_eq!(world.get(&World::path(&deployment, rest)).await.status_and_code().0, 404, "{rest}");
    }
    let again = world.call(&world.writer, Method::DELETE, &World::path(&deployment, ""), None).await;
    assert_eq!(again.status_and_code().0, 404);
    let listed = world.get("/v1/deployments").await.json();
    assert_eq!(listed["data"], json!([]));
}
