//! Tests of `…/mcp_servers`: adding, listing, changing and removing MCP servers.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::world::{World, minimal};

const LITERAL: &str = "a literal that is never returned";

fn server() -> Value {
    json!({"name": "crm", "url": "https://crm.example.com/mcp", "headers": {"X-Key": LITERAL}})
}

#[tokio::test]
async fn a_server_can_be_added_listed_changed_and_removed() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    let servers = World::path(&deployment, "/mcp_servers");
    let added = world.post(&servers, &server()).await;
    assert_eq!(added.status, StatusCode::CREATED, "{}", added.json());
    let added = added.json();
    assert_eq!(added["tools"], Value::Null);
    assert_eq!(added["connection"], json!({"state": "not_connected", "last_error": null}));
    assert_eq!(world.get(&servers).await.json(), json!({"data": [added]}));
    assert_eq!(world.get(&World::path(&deployment, "")).await.json()["mcp_servers"], json!([added]));
    assert_eq!(world.post(&servers, &server()).await.status_and_code(), (409, "conflict".to_owned()));
    let path = World::path(&deployment, "/mcp_servers/crm");
    let changes = json!({"tools": ["find"], "permission": "always_ask", "headers": {"x-more": "1"}});
    let changed = world.patch(&path, &changes).await.json();
    assert_eq!((&changed["tools"], &changed["permission"]), (&json!(["find"]), &json!("always_ask")));
    assert_eq!(changed["headers"], json!({"x-key": null, "x-more": null}));
    let changed = world.patch(&path, &json!({"tools": null, "headers": {"X-Key": null}})).await.json();
    assert_eq!((&changed["tools"], &changed["headers"]), (&Value::Null, &json!({"x-more": null})));
    let removed = world.call(&world.writer, Method::DELETE, &path, None).await.json();
    assert_eq!(removed, json!({"name": "crm", "status": "deleted"}));
    assert_eq!(world.call(&world.writer, Method::DELETE, &path, None).await.status_and_code().0, 404);
}

#[tokio::test]
async fn a_literal_header_value_is_in_no_response_and_not_in_the_database() {
    let world = World::new().await;
    let mut body = minimal();
    body["mcp_servers"] = json!([server()]);
    let deployment = world.post("/v1/deployments", &body).await;
    assert_eq!(deployment.status, StatusCode::CREATED);
    let mut shown = deployment.json().to_string();
    shown.push_str(&world.get(&World::path(&deployment.json(), "/mcp_servers")).await.json().to_string());
    assert!(!shown.contains(LITERAL));
    for entry in std::fs::read_dir(world.workspaces_dir.parent().unwrap()).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("herm.sqlite3") {
            #[expect(clippy::disallowed_methods, reason = "the database files are not workspace files")]
            let bytes = std::fs::read(entry.path()).unwrap();
            assert!(!bytes.windows(LITERAL.len()).any(|window| window == LITERAL.as_bytes()), "{entry:?}");
        }
    }
}

/// A client can copy the MCP servers of a GET response into an update. The response shows `null` instead of a literal
/// header value. In the update, `null` retains the stored value, but is rejected if the origin of the MCP server's URL
/// changes.
#[tokio::test]
async fn a_literal_header_value_is_kept_only_for_the_same_origin() {
    let world = World::new().await;
    let mut body = minimal();
    body["mcp_servers"] = json!([server()]);
    let deployment = world.post("/v1/deployments", &body).await.json();
    let path = World::path(&deployment, "");
    let again = |url: &str| json!({"mcp_servers": [{"name": "crm", "url": url, "headers": {"x-key": null}}]});
    assert_eq!(world.patch(&path, &again("https://crm.example.com/mcp")).await.json(), deployment);
    let moved = world.patch(&path, &again("https://crm.example.com/v2")).await;
    assert_eq!(moved.status, StatusCode::OK, "another path of the same origin");
    for url in ["https://evil.example.net/mcp", "http://crm.example.com/mcp", "https://crm.example.com:8443/"]
    {
        let rejected = world.patch(&path, &again(url)).await;
        assert_eq!(rejected.error_paths(), ["mcp_servers[0].headers.x-key"], "{url}");
        let rejected = world.patch(&World::path(&deployment, "/mcp_servers/crm"), &json!({"url": url})).await;
        assert_eq!(rejected.status_and_code().0, 400, "{url}");
    }
    let never = json!({"mcp_servers": [{"name": "new", "url": "https://e.com", "headers": {"x": null}}]});
    assert_eq!(world.patch(&path, &never).await.status_and_code().0, 400);
}

#[tokio::test]
async fn a_header_template_must_name_a_secret_that_is_allowed_for_the_host() {
    let world = World::new().await;
    let mut body = minimal();
    body["mcp_servers"] = json!([{"name": "crm", "url": "https://crm.example.com", "headers": {"Authorization": "Bearer ${TOKEN}"}}]);
    let rejected = world.post("/v1/deployments", &body).await;
    assert_eq!(
        (rejected.status_and_code().0, rejected.error_paths()),
        (400, vec!["mcp_servers[0].headers.authorization".to_owned()])
    );
    let secret = |hosts: Value| json!({"name": "n", "value": "v", "allowed_hosts": hosts});
    let of_other =
        world.call(&world.admin, Method::POST, "/v1/secrets", Some(&secret(json!(["other.com"])))).await;
    body["secrets"] = json!({"TOKEN": of_other.json()["secret_id"]});
    let rejected = world.post("/v1/deployments", &body).await;
    assert_eq!(
        (rejected.status_and_code().0, rejected.error_paths()),
        (400, vec!["mcp_servers[0].headers.authorization".to_owned()])
    );
    let of_host =
        world.call(&world.admin, Method::POST, "/v1/secrets", Some(&secret(json!(["*.example.com"])))).await;
    body["secrets"] = json!({"TOKEN": of_host.json()["secret_id"]});
    let deployment = world.post("/v1/deployments", &body).await;
    assert_eq!(deployment.status, StatusCode::CREATED, "{}", deployment.json());
    let deployment = deployment.json();
    assert_eq!(deployment["mcp_servers"][0]["headers"], json!({"authorization": "Bearer ${TOKEN}"}));
    // While an MCP server uses the secret, neither the deployment's environment variable for the secret nor the secret
    // itself can be removed.
    let rejected = world.patch(&World::path(&deployment, ""), &json!({"secrets": {"TOKEN": null}})).await;
    assert_eq!(rejected.status_and_code().0, 400);
    let used = format!("/v1/secrets/{}", of_host.json()["secret_id"].as_str().unwrap());
    assert_eq!(world.call(&world.admin, Method::DELETE, &used, None).await.status_and_code().0, 409);
    let cleared =
        world.patch(&World::path(&deployment, ""), &json!({"secrets": null, "mcp_servers": null})).await;
    assert_eq!(cleared.json()["secrets"], json!({}));
    assert_eq!(world.call(&world.admin, Method::DELETE, &used, None).await.status, StatusCode::OK);
    body["secrets"] = json!({});
    body["mcp_servers"][0]["headers"] = json!({"Authorization": "Bearer ${not a name}"});
    assert_eq!(world.post("/v1/deployments", &body).await.status_and_code().0, 400);
}

#[tokio::test]
async fn an_invalid_server_is_rejected_with_its_field_errors() {
    let world = World::new().await;
    let deployment = world.deployment().await;
    for (server, errors) in [
        (json!({}), vec!["name", "url"]),
        (json!({"name": "a.b", "url": "https://e.com"}), vec!["name"]),
        (json!({"name": "a", "url": "https://u:p@e.com"}), vec!["url"]),
        (json!({"name": "a", "url": "https://e.com", "tools": "all"}), vec!["tools"]),
        (json!({"name": "a", "url": "https://e.com", "tools": ["a", 1]}), vec!["tools[1]"]),
        (json!({"name": "a", "url": "https://e.com", "headers": {"Host": "x"}}), vec!["headers.Host"]),
        (json!({"name": "a", "url": "https://e.com", "headers": {"a b": "x"}}), vec!["headers.a b"]),
        (json!({"name": "a", "url": "https://e.com", "headers": {"a": "x\r\ny: z"}}), vec!["headers.a"]),
        (json!({"name": "a", "url": "https://e.com", "headers": {"a": "1", "A": "2"}}), vec!["headers.A"]),
        (json!({"name": "a", "url": "https://e.com", "permission": "maybe"}), vec!["permission"]),
    ] {
        let rejected = world.post(&World::path(&deployment, "/mcp_servers"), &server).await;
        let expected: Vec<String> = errors.iter().map(|error| (*error).to_owned()).collect();
        assert_eq!((rejected.status_and_code().0, rejected.error_paths()), (400, expected), "{server}");
    }
}
