//! A client for the part of the server's API that the benchmarks use.

use anyhow::{Context as _, ensure};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::event_stream::EventStream;

/// A client for one server. It authenticates with an API key of that server.
#[derive(Clone)]
pub(crate) struct Api {
    http: reqwest::Client,
    base_url: String,
    key: String,
}

impl Api {
    pub(crate) fn new(base_url: &str, key: &str) -> Self {
        Self { http: reqwest::Client::new(), base_url: base_url.to_owned(), key: key.to_owned() }
    }

    /// Creates a deployment with default settings and returns its id.
    pub(crate) async fn create(&self) -> anyhow::Result<String> {
        self.create_with(None).await
    }

    /// Creates a deployment and returns its id. `None` selects the default sandbox type.
    pub(crate) async fn create_with(&self, sandbox_type: Option<&str>) -> anyhow::Result<String> {
        let mut body = json!({"customer_id": "acme", "name": "Ada", "system_prompt": "Be brief."});
        if let (Some(kind), Some(fields)) = (sandbox_type, body.as_object_mut()) {
            fields.insert("sandbox".to_owned(), json!({"type": kind}));
        }
        text(&self.post("/v1/deployments", &body).await?, "deployment_id")
    }

    /// Creates a deployment with a `local` sandbox and a secret that only `host` may receive. The sandbox never sees
    /// the secret: its environment variable `API_TOKEN` contains a random placeholder, which the egress proxy replaces
    /// with the secret in requests to `host`. Returns the deployment's id.
    pub(crate) async fn create_with_secret(&self, host: &str) -> anyhow::Result<String> {
        let secret = json!({"name": "API", "value": "sk-bench-Zq8fP2mWn4Lx7Vt1", "allowed_hosts": [host]});
        let secret_id = text(&self.post("/v1/secrets", &secret).await?, "secret_id")?;
        let body = json!({
            "customer_id": "acme", "name": "Ada", "system_prompt": "Be brief.", "sandbox": {"type": "local"},
            "secrets": {"API_TOKEN": secret_id},
        });
        text(&self.post("/v1/deployments", &body).await?, "deployment_id")
    }

    pub(crate) async fn delete(&self, deployment_id: &str) -> anyhow::Result<()> {
        let url = format!("{}/v1/deployments/{deployment_id}", self.base_url);
        let status = self.authorized(self.http.delete(url)).send().await?.status();
        ensure!(status.is_success(), "deleting the deployment {deployment_id} failed with status {status}");
        Ok(())
    }

    pub(crate) async fn create_many(&self, count: usize) -> anyhow::Result<Vec<String>> {
        let mut deployments = Vec::with_capacity(count);
        for _ in 0..count {
            deployments.push(self.create().await?);
        }
        Ok(deployments)
    }

    pub(crate) async fn create_thread(&self, deployment_id: &str) -> anyhow::Result<String> {
        let path = format!("/v1/deployments/{deployment_id}/threads");
        text(&self.post(&path, &json!({})).await?, "thread_id")
    }

    /// Sends a GET request and returns the response body as text.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<String> {
        let request = self.authorized(self.http.get(format!("{}{path}", self.base_url)));
        let response = request.header("Accept", "application/json").send().await;
        let response = response.with_context(|| format!("GET {path} failed"))?;
        Ok(response.error_for_status()?.text().await?)
    }

    pub(crate) async fn is_ready(&self) -> bool {
        let response = self.http.get(format!("{}/readyz", self.base_url)).send().await;
        response.is_ok_and(|response| response.status().is_success())
    }

    /// Sends a message to the thread with this id, or to a new thread if the id is `new`. Returns the thread's id.
    pub(crate) async fn send(
        &self,
        deployment_id: &str,
        thread: &str,
        content: &str,
    ) -> anyhow::Result<String> {
        let body = json!({"content": content, "thread_id": thread});
        let path = format!("/v1/deployments/{deployment_id}/messages");
        text(&self.post(&path, &body).await?, "thread_id")
    }

    /// Opens the event stream of a deployment. `query` is the query string of the URL: empty, or beginning with `?`.
    pub(crate) async fn stream(&self, deployment_id: &str, query: &str) -> anyhow::Result<EventStream> {
        let path = format!("/v1/deployments/{deployment_id}/events{query}");
        let request = self.authorized(self.http.get(format!("{}{path}", self.base_url)));
        let response = request.header("Accept", "text/event-stream").send().await;
        let response = response.with_context(|| format!("failed to open the stream {path}"))?;
        Ok(EventStream::new(response.error_for_status()?))
    }

    async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let request = self.authorized(self.http.post(format!("{}{path}", self.base_url))).json(body);
        let response = request.send().await.with_context(|| format!("POST {path} failed"))?;
        let status = response.status();
        let body = response.bytes().await?;
        ensure!(
            status.is_success(),
            "POST {path} failed with status {status}: {}",
            String::from_utf8_lossy(&body)
        );
        Ok(serde_json::from_slice(&body)?)
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        request.bearer_auth(&self.key)
    }
}

fn text(response: &Value, field: &str) -> anyhow::Result<String> {
    let text = response.get(field).and_then(Value::as_str);
    Ok(text.with_context(|| format!("the response has no field `{field}`: {response}"))?.to_owned())
}
