//! `…/skills`: inline, in files, from the web; looked at before they are taken.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::response::Redirect;
use axum::routing::get;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::time::StandingTime;
use crate::world::{Answer, World, minimal};

fn skill_md(description: &str) -> String {
    format!("---\nname: reports\ndescription: {description}\n---\n# Reports\n")
}

fn inline(name: &str) -> Value {
    json!({"name": name, "source": "inline", "content": skill_md("How reports are made.")})
}

async fn add(world: &World, deployment: &Value, skill: &Value) -> Answer {
    world.post(&World::path(deployment, "/skills"), skill).await
}

fn workspace(world: &World, deployment: &Value) -> PathBuf {
    world.workspaces_dir.join(deployment["deployment_id"].as_str().unwrap())
}

/// A web server whose document can be changed; gives its port.
async fn serve(document: Arc<Mutex<Vec<u8>>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let inward = format!("http://127.0.0.1:{port}/SKILL.md");
    let routes = Router::new()
        .route("/SKILL.md", get(move || async move { document.lock().unwrap().clone() }))
        .route("/inward", get(move || async move { Redirect::temporary(&inward) }));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    port
}

#[tokio::test]
async fn an_inline_skill_is_added_listed_read_replaced_and_removed() {
    let world = World::new().await;
    let made = world.deployment().await;
    let added = add(&world, &made, &inline("reports")).await;
    assert_eq!(added.status, StatusCode::CREATED, "{}", added.json());
    let added = added.json();
    assert_eq!((&added["name"], &added["source"]), (&json!("reports"), &json!("inline")));
    assert_eq!(world.get(&World::path(&made, "/skills")).await.json(), json!({"data": [added]}));
    let shown = world.get(&World::path(&made, "")).await.json();
    assert_eq!(shown["skills"], json!([added]), "without its content");
    assert_ne!(shown["updated_at"], Value::Null);
    let path = World::path(&made, &format!("/skills/{}", added["skill_id"].as_str().unwrap()));
    assert_eq!(world.get(&path).await.json()["content"], skill_md("How reports are made."));

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
    assert_eq!(world.get(&World::path(&made, "")).await.json()["skills"], json!([]));
}

#[tokio::test]
async fn a_skill_that_is_none_says_why() {
    let world = World::new().await;
    let made = world.deployment().await;
    for (content, reason) in [
        ("# No front matter", "no front matter"),
        ("---\nname: [\n---\n", "not YAML"),
        ("---\ndescription: b\n---\n", "no name"),
        ("---\nname: a\n---\n", "no description"),
    ] {
        let refused = add(&world, &made, &json!({"name": "s", "source": "inline", "content": content})).await;
        assert_eq!(refused.refusal(), (422, "invalid_skill".to_owned()));
        let message = refused.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(reason) && message.contains("\"s\""), "{message}");
    }
}

#[tokio::test]
async fn all_skills_of_a_create_are_looked_at() {
    let world = World::new().await;
    let mut body = minimal();
    let bad = |name: &str| json!({"name": name, "source": "inline", "content": "nothing"});
    body["skills"] = json!([bad("a"), inline("b"), bad("c")]);
    let refused = world.post("/v1/deployments", &body).await;
    assert_eq!(refused.refusal(), (422, "invalid_skill".to_owned()));
    assert_eq!(refused.faults(), ["skills[0]", "skills[2]"]);
    assert_eq!(world.get("/v1/deployments").await.json()["data"], json!([]));
    assert!(!world.workspaces_dir.exists() || fs::read_dir(&world.workspaces_dir).unwrap().next().is_none());
}

#[tokio::test]
async fn what_a_skill_needs_and_what_it_may_not_have_is_said() {
    let world = World::new().await;
    let made = world.deployment().await;
    for (skill, faults) in [
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
        let refused = add(&world, &made, &skill).await;
        assert_eq!(
            (refused.refusal().0, refused.faults()),
            (400, faults.iter().map(|f| (*f).to_owned()).collect()),
            "{skill}"
        );
    }
}

#[tokio::test]
async fn names_are_unique_and_their_number_is_limited() {
    let world = World::new().await;
    let mut body = minimal();
    body["skills"] = json!([inline("a"), inline("a")]);
    let refused = world.post("/v1/deployments", &body).await;
    assert_eq!((refused.refusal().0, refused.faults()), (400, vec!["skills".to_owned()]));
    body["skills"] = (0..20).map(|number| inline(&format!("s{number}"))).collect();
    let made = world.post("/v1/deployments", &body).await.json();
    let names: Vec<&str> =
        made["skills"].as_array().unwrap().iter().map(|skill| skill["name"].as_str().unwrap()).collect();
    assert_eq!((names.len(), names[0], names[19]), (20, "s0", "s19"), "in the order they were given");
    assert_eq!(add(&world, &made, &inline("s20")).await.refusal().0, 400);
    assert_eq!(add(&world, &made, &inline("s0")).await.faults(), ["name"]);
}

#[tokio::test]
async fn a_file_may_be_missing_at_create_and_joins_when_it_is_written() {
    let world = World::new().await;
    let mut body = minimal();
    body["skills"] = json!([{"name": "reports", "source": "file", "path": "skills/reports/SKILL.md"}]);
    let made = world.post("/v1/deployments", &body).await.json();
    assert_eq!(made["skills"][0]["status"], "missing");
    assert_eq!(made["skills"][0]["description"], Value::Null);
    let dir = workspace(&world, &made).join("skills/reports");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("SKILL.md"), skill_md("From a file.")).unwrap();
    let shown = world.get(&World::path(&made, "")).await.json();
    assert_eq!(
        (&shown["skills"][0]["status"], &shown["skills"][0]["description"]),
        (&json!("ready"), &json!("From a file."))
    );
    fs::write(dir.join("SKILL.md"), "nothing").unwrap();
    let listed = world.get(&World::path(&made, "/skills")).await.json();
    assert_eq!(listed["data"][0]["status"], "invalid");
    // On a deployment at work a file that is not there is refused.
    let absent = add(&world, &made, &json!({"name": "other", "source": "file", "path": "other.md"})).await;
    assert_eq!(absent.refusal(), (422, "invalid_skill".to_owned()));
}

#[tokio::test]
async fn content_that_comes_along_is_written_and_no_link_is_followed() {
    let world = World::new().await;
    let mut body = minimal();
    body["skills"] =
        json!([{"name": "a", "source": "file", "path": "skills/a.md", "content": skill_md("Along.")}]);
    let made = world.post("/v1/deployments", &body).await.json();
    assert_eq!(made["skills"][0]["status"], "ready");
    let inside = workspace(&world, &made);
    assert_eq!(fs::read_to_string(inside.join("skills/a.md")).unwrap(), skill_md("Along."));
    let outside = world.workspaces_dir.join("outside");
    fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
    let escaping = json!({"name": "b", "source": "file", "path": "link/b.md", "content": skill_md("Out.")});
    assert_eq!(add(&world, &made, &escaping).await.refusal().0, 422);
    assert!(fs::read_dir(&outside).unwrap().next().is_none());
}

/// Time stands still, so that the limit of a fetch does not end one that a busy machine serves slowly.
#[tokio::test(start_paused = true)]
async fn a_skill_from_the_web_is_fetched_again_and_the_same_bytes_are_no_change() {
    let _still = StandingTime::hold();
    let world = World::new().await;
    let document = Arc::new(Mutex::new(skill_md("First.").into_bytes()));
    let port = serve(Arc::clone(&document)).await;
    let mut body = minimal();
    body["skills"] =
        json!([{"name": "web", "source": "url", "url": format!("http://localhost:{port}/SKILL.md")}]);
    let made = world.post("/v1/deployments", &body).await.json();
    assert_eq!(made["skills"][0]["description"], "First.");
    world.clock.advance_ms(1000);
    let path = World::path(&made, "");
    let same = world.patch(&path, &json!({"skills": body["skills"]})).await.json();
    assert_eq!(same, made);
    *document.lock().unwrap() = skill_md("Second.").into_bytes();
    let changed = world.patch(&path, &json!({"skills": body["skills"]})).await.json();
    assert_eq!(changed["skills"][0]["description"], "Second.");
    assert_eq!(changed["skills"][0]["skill_id"], made["skills"][0]["skill_id"]);
    assert_ne!(changed["updated_at"], made["updated_at"]);
    *document.lock().unwrap() = skill_md("Third.").into_bytes();
    let skill = World::path(&made, &format!("/skills/{}", made["skills"][0]["skill_id"].as_str().unwrap()));
    let fetched = world.call(&world.writer, Method::PUT, &skill, Some(&json!({}))).await.json();
    assert_eq!(fetched["description"], "Third.");
    *document.lock().unwrap() = vec![0xff, 0xfe];
    let refused = world.call(&world.writer, Method::PUT, &skill, Some(&json!({}))).await;
    assert_eq!(refused.refusal(), (422, "invalid_skill".to_owned()));
    assert_eq!(world.get(&skill).await.json()["description"], "Third.");
}

#[tokio::test(start_paused = true)]
async fn a_private_address_is_not_fetched_nor_a_redirect_to_one() {
    let _still = StandingTime::hold();
    let world = World::new().await;
    let made = world.deployment().await;
    let port = serve(Arc::new(Mutex::new(skill_md("Private.").into_bytes()))).await;
    let addresses = [
        format!("http://127.0.0.1:{port}/SKILL.md"),
        format!("http://[::1]:{port}/SKILL.md"),
        // The tests' own host is allowed by its name; where it leads to is not.
        format!("http://localhost:{port}/inward"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
    ];
    for url in addresses {
        let refused = add(&world, &made, &json!({"name": "web", "source": "url", "url": url})).await;
        assert_eq!(refused.refusal(), (422, "invalid_skill".to_owned()));
        let message = refused.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains("private address"), "{url}: {message}");
    }
}

#[tokio::test]
async fn nothing_is_fetched_for_who_may_not_change_the_deployment() {
    let world = World::new().await;
    let made = world.deployment().await;
    let skill = json!({"name": "web", "source": "url", "url": "http://127.0.0.1:1/"});
    for (key, status) in [(&world.reader, 403), (&world.stranger, 404)] {
        let refused = world.call(key, Method::POST, &World::path(&made, "/skills"), Some(&skill)).await;
        assert_eq!(refused.refusal().0, status);
        let body = json!({"skills": [skill]});
        let refused = world.call(key, Method::PATCH, &World::path(&made, ""), Some(&body)).await;
        assert_eq!(refused.refusal().0, status);
    }
}
