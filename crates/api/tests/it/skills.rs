//! Tests of `…/skills`: skills with the sources `inline`, `file` and `url`, and their validation.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::response::Redirect;
use axum::routing::get;
use herm_testkit::time::FrozenTime;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::world::{ApiResponse, World, minimal};

fn skill_md(description: &str) -> String {
    format!("---\nname: reports\ndescription: {description}\n---\n# Reports\n")
}

fn inline(name: &str) -> Value {
    json!({"name": name, "source": "inline", "content": skill_md("How reports are created.")})
}

async fn add(world: &World, deployment: &Value, skill: &Value) -> ApiResponse {
    world.post(&World::path(deployment, "/skills"), skill).await
}

fn workspace(world: &World, deployment: &Value) -> PathBuf {
    world.workspaces_dir.join(deployment["deployment_id"].as_str().unwrap())
}

/// Starts a web server that responds to every request with the current value of `document`. Returns the server's port.
async fn serve(document: Arc<Mutex<Vec<u8>>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let redirect_target = format!("http://127.0.0.1:{port}/SKILL.md");
    let routes = Router::new()
        .route("/SKILL.md", get(move || async move { document.lock().unwrap().clone() }))
        .route("/redirect", get(move || async move { Redirect::temporary(&redirect_target) }));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    port
}

#[tokio::test]
async fn an_inline_skill_can_be_added_listed_read_replaced_and_deleted() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let added = add(&world, &deployment, &inline("reports")).await;
    assert_eq!(added.status, StatusCode::CREATED, "{}", added.json());
    let added = added.json();
    assert_eq!((&added["name"], &added["source"]), (&json!("reports"), &json!("inline")));
    assert_eq!(world.get(&World::path(&deployment, "/skills")).await.json(), json!({"data": [added]}));
    let shown = world.get(&World::path(&deployment, "")).await.json();
    assert_eq!(shown["skills"], json!([added]), "without its content");
    assert_ne!(shown["updated_at"], Value::Null);
    let path = World::path(&deployment, &format!("/skills/{}", added["skill_id"].as_str().unwrap()));
    assert_eq!(world.get(&path).await.json()["content"], skill_md("How reports are created."));

    world.clock.advance_ms(1000);
    let content = json!({"content": skill_md("New.")});
    let replaced = world.call(&world.writer, Method::PUT, &path, Some(&content)).await.json();
    assert_eq!((&replaced["skill_id"], &replaced["description"]), (&added["skill_id"], &json!("New.")));
    assert_eq!(replaced["created_at"], added["created_at"]);
    assert_ne!(replaced["updated_at"], added["updated_at"]);
    let renamed = world.call(&world.writer, Method::PUT, &path, Some(&json!({"name": "other"}))).await.json();
    assert_eq!((&renamed["name"], &renamed["skill_id"]), (&json!("other"), &added["skill_id"]));

    let removed = world.call(&world.writer, Method::DELETE, &path, None).await.json();
    assert_eq!(removed, json!({"skill_id": added["skill_id"], "status": "deleted"}));
    assert_eq!(world.get(&path).await.status, StatusCode::NOT_FOUND);
    assert_eq!(world.get(&World::path(&deployment, "")).await.json()["skills"], json!([]));
}

#[tokio::test]
async fn an_invalid_skill_is_rejected_with_the_reason() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    for (content, reason) in [
        ("# No front matter", "no front matter"),
        ("---\nname: [\n---\n", "must be YAML"),
        ("---\ndescription: b\n---\n", "no `name`"),
        ("---\nname: a\n---\n", "no `description`"),
    ] {
        let rejected =
            add(&world, &deployment, &json!({"name": "s", "source": "inline", "content": content})).await;
        assert_eq!(rejected.status_and_code(), (422, "invalid_skill".to_owned()));
        let message = rejected.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(reason) && message.contains("\"s\""), "{message}");
    }
}

#[tokio::test]
async fn creating_a_deployment_validates_all_skills() {
    let world = World::new().await;
    let mut body = minimal();
    let bad = |name: &str| json!({"name": name, "source": "inline", "content": "nothing"});
    body["skills"] = json!([bad("a"), inline("b"), bad("c")]);
    let rejected = world.post("/v1/deployments", &body).await;
    assert_eq!(rejected.status_and_code(), (422, "invalid_skill".to_owned()));
    assert_eq!(rejected.error_paths(), ["skills[0]", "skills[2]"]);
    assert_eq!(world.get("/v1/deployments").await.json()["data"], json!([]));
    assert!(!world.workspaces_dir.exists() || fs::read_dir(&world.workspaces_dir).unwrap().next().is_none());
}

#[tokio::test]
async fn missing_and_conflicting_skill_fields_are_rejected() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    for (skill, errors) in [
        (json!({}), vec!["name", "source"]),
        (json!({"name": "a", "source": "tape"}), vec!["source"]),
        (json!({"name": "a", "source": "file"}), vec!["path"]),
        (json!({"name": "a", "source": "file", "path": "../up"}), vec!["path"]),
        (json!({"name": "a", "source": "file", "path": "/etc/passwd"}), vec!["path"]),
        (json!({"name": "a", "source": "file", "path": "."}), vec!["path"]),
        (
            json!({"name": "a/b", "source": "inline", "content": skill_md("b"), "url": "https://e.com"}),
            vec!["name", "url"],
        ),
        (json!({"name": "a", "source": "url", "url": "file:///etc/passwd"}), vec!["url"]),
        (json!({"name": "a", "source": "url", "url": "https://user:word@e.com"}), vec!["url"]),
        (json!({"name": "a", "source": "inline", "content": skill_md("b"), "more": 1}), vec!["more"]),
    ] {
        let rejected = add(&world, &deployment, &skill).await;
        assert_eq!(
            (rejected.status_and_code().0, rejected.error_paths()),
            (400, errors.iter().map(|f| (*f).to_owned()).collect()),
            "{skill}"
        );
    }
}

#[tokio::test]
async fn skill_names_are_unique_and_their_number_is_limited() {
    let world = World::new().await;
    let mut body = minimal();
    body["skills"] = json!([inline("a"), inline("a")]);
    let rejected = world.post("/v1/deployments", &body).await;
    assert_eq!((rejected.status_and_code().0, rejected.error_paths()), (400, vec!["skills".to_owned()]));
    body["skills"] = (0..20).map(|number| inline(&format!("s{number}"))).collect();
    let deployment = world.post("/v1/deployments", &body).await.json();
    let names: Vec<&str> = deployment["skills"]
        .as_array()
        .unwrap()
        .iter()
        .map(|skill| skill["name"].as_str().unwrap())
        .collect();
    assert_eq!((names.len(), names[0], names[19]), (20, "s0", "s19"), "in the requested order");
    assert_eq!(add(&world, &deployment, &inline("s20")).await.status_and_code().0, 400);
    assert_eq!(add(&world, &deployment, &inline("s0")).await.error_paths(), ["name"]);
}

#[tokio::test]
async fn a_file_skill_becomes_ready_when_its_missing_file_is_written() {
    let world = World::new().await;
    let mut body = minimal();
    body["skills"] = json!([{"name": "reports", "source": "file", "path": "skills/reports/SKILL.md"}]);
    let deployment = world.post("/v1/deployments", &body).await.json();
    assert_eq!(deployment["skills"][0]["status"], "missing");
    assert_eq!(deployment["skills"][0]["description"], Value::Null);
    let dir = workspace(&world, &deployment).join("skills/reports");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("SKILL.md"), skill_md("From a file.")).unwrap();
    let shown = world.get(&World::path(&deployment, "")).await.json();
    assert_eq!(
        (&shown["skills"][0]["status"], &shown["skills"][0]["description"]),
        (&json!("ready"), &json!("From a file."))
    );
    fs::write(dir.join("SKILL.md"), "nothing").unwrap();
    let listed = world.get(&World::path(&deployment, "/skills")).await.json();
    assert_eq!(listed["data"][0]["status"], "invalid");
    // When a `file` skill is added to an existing deployment, the file must exist.
    let absent =
        add(&world, &deployment, &json!({"name": "other", "source": "file", "path": "other.md"})).await;
    assert_eq!(absent.status_and_code(), (422, "invalid_skill".to_owned()));
}

#[tokio::test]
async fn initial_content_is_written_without_following_symbolic_links() {
    let world = World::new().await;
    let mut body = minimal();
    body["skills"] =
        json!([{"name": "a", "source": "file", "path": "skills/a.md", "content": skill_md("Along.")}]);
    let deployment = world.post("/v1/deployments", &body).await.json();
    assert_eq!(deployment["skills"][0]["status"], "ready");
    let inside = workspace(&world, &deployment);
    assert_eq!(fs::read_to_string(inside.join("skills/a.md")).unwrap(), skill_md("Along."));
    let outside = world.workspaces_dir.join("outside");
    fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
    let escaping = json!({"name": "b", "source": "file", "path": "link/b.md", "content": skill_md("Out.")});
    assert_eq!(add(&world, &deployment, &escaping).await.status_and_code().0, 422);
    assert!(fs::read_dir(&outside).unwrap().next().is_none());
}

/// The test freezes the clock, so that a fetch cannot time out on a slow machine.
#[tokio::test(start_paused = true)]
async fn updating_a_url_skill_fetches_it_again_and_identical_content_changes_nothing() {
    let _frozen = FrozenTime::hold();
    let world = World::new().await;
    let document = Arc::new(Mutex::new(skill_md("First.").into_bytes()));
    let port = serve(Arc::clone(&document)).await;
    let mut body = minimal();
    body["skills"] =
        json!([{"name": "web", "source": "url", "url": format!("http://localhost:{port}/SKILL.md")}]);
    let deployment = world.post("/v1/deployments", &body).await.json();
    assert_eq!(deployment["skills"][0]["description"], "First.");
    world.clock.advance_ms(1000);
    let path = World::path(&deployment, "");
    let same = world.patch(&path, &json!({"skills": body["skills"]})).await.json();
    assert_eq!(same, deployment);
    *document.lock().unwrap() = skill_md("Second.").into_bytes();
    let changed = world.patch(&path, &json!({"skills": body["skills"]})).await.json();
    assert_eq!(changed["skills"][0]["description"], "Second.");
    assert_eq!(changed["skills"][0]["skill_id"], deployment["skills"][0]["skill_id"]);
    assert_ne!(changed["updated_at"], deployment["updated_at"]);
    *document.lock().unwrap() = skill_md("Third.").into_bytes();
    let skill = World::path(
        &deployment,
        &format!("/skills/{}", deployment["skills"][0]["skill_id"].as_str().unwrap()),
    );
    let fetched = world.call(&world.writer, Method::PUT, &skill, Some(&json!({}))).await.json();
    assert_eq!(fetched["description"], "Third.");
    *document.lock().unwrap() = vec![0xff, 0xfe];
    let rejected = world.call(&world.writer, Method::PUT, &skill, Some(&json!({}))).await;
    assert_eq!(rejected.status_and_code(), (422, "invalid_skill".to_owned()));
    assert_eq!(world.get(&skill).await.json()["description"], "Third.");
}

#[tokio::test(start_paused = true)]
async fn fetching_a_private_address_is_rejected_even_after_a_redirect() {
    let _frozen = FrozenTime::hold();
    let world = World::new().await;
    let deployment = world.deployment().await;
    let port = serve(Arc::new(Mutex::new(skill_md("Private.").into_bytes()))).await;
    let addresses = [
        format!("http://127.0.0.1:{port}/SKILL.md"),
        format!("http://[::1]:{port}/SKILL.md"),
        // The host name `localhost` is allowed, but this URL redirects to a private address that is not allowed.
        format!("http://localhost:{port}/redirect"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
    ];
    for url in addresses {
        let rejected = add(&world, &deployment, &json!({"name": "web", "source": "url", "url": url})).await;
        assert_eq!(rejected.status_and_code(), (422, "invalid_skill".to_owned()));
        let message = rejected.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains("private address"), "{url}: {message}");
    }
}

#[tokio::test]
async fn a_key_without_write_access_triggers_no_fetch() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let skill = json!({"name": "web", "source": "url", "url": "http://127.0.0.1:1/"});
    for (key, status) in [(&world.reader, 403), (&world.other_account, 404)] {
        let rejected =
            world.call(key, Method::POST, &World::path(&deployment, "/skills"), Some(&skill)).await;
        assert_eq!(rejected.status_and_code().0, status);
        let body = json!({"skills": [skill]});
        let rejected = world.call(key, Method::PATCH, &World::path(&deployment, ""), Some(&body)).await;
        assert_eq!(rejected.status_and_code().0, status);
    }
}
