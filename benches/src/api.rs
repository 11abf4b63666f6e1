//! The server's API, as far as it is measured here.

use anyhow::{Context as _, ensure};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::frames::Frames;

/// Speaks to one server. Cheap to clone.
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

    /// Makes a deployment with everything at its default; gives its id.
    pub(crate) async fn create(&self) -> anyhow::Result<String> {
        self.create_with(None).await
    }

    /// Makes a deployment whose sandbox is of this type.
    pub(crate) async fn create_with(&self, sandbox_type: Option<&str>) -> anyhow::Result<String> {
        let mut body = json!({"customer_id": "acme", "name": "Ada", "system_prompt": "Be brief."});
        if let (Some(kind), Some(fields)) = (sandbox_type, body.as_object_mut()) {
            fields.insert("sandbox".to_owned(), json!({"type": kind}));
        }
        text(&self.post("/v1/deployments", &body).await?, "deployment_id")
    }

    /// Makes a deployment with a `local` sandbox, whose commands find as `API_TOKEN` what stands for a secret of this host.
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
        let status = self.authorised(self.http.delete(url)).send().await?.status();
        ensure!(status.is_success(), "a deletion was answered with {status}");
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

    /// What a path answers, as text.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<String> {
        let request = self.authorised(self.http.get(format!("{}{path}", self.base_url)));
        let response = request.header("Accept", "application/json").send().await;
        let response = response.with_context(|| format!("failed to get {path}"))?;
        Ok(response.error_for_status()?.text().await?)
    }

    pub(crate) async fn is_ready(&self) -> bool {
        let answer = self.http.get(format!("{}/readyz", self.base_url)).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// Sends a message to a thread, or to `new`; gives the thread's id.
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

    /// Opens a deployment's stream; `query` begins with `?` or is empty.
    pub(crate) async fn stream(&self, deployment_id: &str, query: &str) -> anyhow::Result<Frames> {
        let path = format!("/v1/deployments/{deployment_id}/events{query}");
        let request = self.authorised(self.http.get(format!("{}{path}", self.base_url)));
        let response = request.header("Accept", "text/event-stream").send().await;
        let response = response.with_context(|| format!("failed to open {path}"))?;
        Ok(Frames::new(response.error_for_status()?))
    }

    async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let request = self.authorised(self.http.post(format!("{}{path}", self.base_url))).json(body);
        let response = request.send().await.with_context(|| format!("failed to post to {path}"))?;
        let status = response.status();
        let answer = response.bytes().await?;
        ensure!(status.is_success(), "{path} answered {status}: {}", String::from_utf8_lossy(&answer));
        Ok(serde_json::from_slice(&answer)?)
    }

    fn authorised(&self, request: RequestBuilder) -> RequestBuilder {
        request.bearer_auth(&self.key)
    }
}

fn text(answer: &Value, field: &str) -> anyhow::Result<String> {
    let text = answer.get(field).and_then(Value::as_str);
    Ok(text.with_context(|| format!("an answer has no {field}: {answer}"))?.to_owned())
}
