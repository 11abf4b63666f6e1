//! The command `herm demo`. It starts a server in this process, then acts as a client of the server's HTTP
//! API and prints every event.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use anyhow::{Context as _, bail};
use futures_util::StreamExt as _;
use herm_config::{Config, DEMO_MODEL, Flags, load_from_machine};
use herm_crypto::{ApiKey, KeyKind};
use herm_types::Rng as _;
use herm_types::time::SystemRng;
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};

use crate::args::Demo;
use crate::open::{self, Access};
use crate::server::Server;

/// The maximum number of characters that are printed for one event. Longer text is cut off and ends with `…`.
const SHOWN_CHARS: usize = 300;

pub(crate) async fn run(demo: Demo) -> anyhow::Result<()> {
    // Use a temporary directory, so that the demo leaves nothing behind and does not touch existing data.
    let dir = tempfile::tempdir().context("failed to create a temporary directory")?;
    let flags = Flags { data_dir: Some(dir.path().to_owned()), config: demo.config, ..Flags::default() };
    let mut config = load_from_machine(&flags)?;
    config.server.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    config.database = herm_config::Database::Sqlite { dir: dir.path().to_owned() };
    let store = open::store(&config, Access { exclusive: true, migrate: false }).await?;
    let key = ApiKey::generate(KeyKind::Secret, &mut |bytes: &mut [u8]| SystemRng.fill(bytes));
    herm_app::keys::accept_bootstrap(&store, &open::id_source(), &key)
        .await
        .context("failed to create a key")?;
    let server = Server::start(&config, store).await?;
    let client = DemoClient {
        http: Client::new(),
        base_url: format!("http://{}", server.address),
        key,
        started_at: Instant::now(),
    };
    let outcome = client.tour(model(&config), &demo.message).await;
    server.stop().await;
    outcome
}

/// Returns the configured default model if its provider has an API key, and the scripted demo model
/// otherwise.
fn model(config: &Config) -> String {
    let name = &config.models.default_model;
    let has_key = config.models.provider(&name.provider).is_some_and(|provider| provider.api_key.is_some());
    if has_key { name.to_string() } else { DEMO_MODEL.to_owned() }
}

struct DemoClient {
    http: Client,
    base_url: String,
    key: ApiKey,
    started_at: Instant,
}

impl DemoClient {
    async fn tour(&self, model: String, message: &str) -> anyhow::Result<()> {
        self.print(&format!("server listening on {}", self.base_url));
        if model == DEMO_MODEL {
            self.print("the default model's provider has no key, so the agent uses demo/tour: a canned script, not a model");
        }
        let deployment = self
            .call(self.http.post(self.url("/v1/deployments")).json(&json!({
                "customer_id": "acme",
                "name": "Tour guide",
                "system_prompt": "Show what you can do: write a file, run a command that reads it, and say what you saw.",
                "model": model,
            })))
            .await?;
        let id = text(&deployment, "deployment_id");
        let engine = deployment.pointer("/sandbox/engine").and_then(Value::as_str).unwrap_or("none");
        self.print(&format!("deployment {id} is {} (sandbox: {engine})", text(&deployment, "status")));
        let events = self.http.get(self.url(&format!("/v1/deployments/{id}/events?after=evt_0")));
        let events = events.bearer_auth(self.key.expose()).send().await?.error_for_status()?;
        let sent = self.http.post(self.url(&format!("/v1/deployments/{id}/messages")));
        let sent = self.call(sent.json(&json!({"content": message}))).await?;
        self.print(&format!("message accepted as {}", text(&sent, "run_id")));
        self.follow(events).await?;
        let path = format!("/v1/deployments/{id}/files?path=tour");
        if let Ok(listing) = self.call(self.http.get(self.url(&path))).await {
            self.print(&format!(
                "the Files API lists tour/: {}",
                listing.get("entries").unwrap_or(&Value::Null)
            ));
        }
        self.call(self.http.delete(self.url(&format!("/v1/deployments/{id}")))).await?;
        self.print("the deployment is deleted, with its sandbox, files and events");
        Ok(())
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base_url)
    }

    async fn call(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        let response = request.bearer_auth(self.key.expose()).send().await?;
        let status = response.status();
        let body: Value = response.json().await?;
        if !status.is_success() {
            bail!("the server responded with {status}: {}", text(&body, "message"));
        }
        Ok(body)
    }

    /// Prints the events of a stream until the run has ended. Fails unless the run has completed.
    async fn follow(&self, response: reqwest::Response) -> anyhow::Result<()> {
        let mut bytes = response.bytes_stream();
        let mut buffer = Vec::new();
        while let Some(chunk) = bytes.next().await {
            buffer.extend_from_slice(&chunk?);
            while let Some(end) = buffer.windows(2).position(|pair| pair == b"\n\n") {
                let frame: Vec<u8> = buffer.drain(..end + 2).collect();
                if let Some(status) = self.show(&String::from_utf8_lossy(&frame)) {
                    return if status == "completed" {
                        Ok(())
                    } else {
                        bail!("the run ended with the status {status}")
                    };
                }
            }
        }
        bail!("the event stream ended before the run did")
    }

    /// Prints one frame of the event stream. Returns the status of the run if the frame reports that the run
    /// has ended.
    fn show(&self, frame: &str) -> Option<String> {
        let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let (event, id) = (field("event:")?, field("id:").unwrap_or_default());
        let data: Value = serde_json::from_str(field("data:")?).ok()?;
        let shown = match event {
            "token" => text(&data, "delta"),
            "message" => format!("{}: {}", text(&data, "role"), text(&data, "content")),
            "tool_call" => {
                format!("{} {}", text(&data, "tool"), data.get("arguments").unwrap_or(&Value::Null))
            }
            "tool_result" => format!("{} → {}", text(&data, "tool"), text(&data, "result")),
            _ => text(&data, "status"),
        };
        let mut short: String = shown.chars().take(SHOWN_CHARS).collect();
        if short.len() < shown.len() {
            short.push('…');
        }
        self.print(&format!(
            "{id:<8} {event:<18} {}",
            short.replace('\n', "\n                                   ")
        ));
        let status = text(&data, "status");
        (event == "run_status" && ["completed", "error", "cancelled"].contains(&status.as_str()))
            .then_some(status)
    }

    #[expect(clippy::print_stdout, reason = "a command prints its result")]
    fn print(&self, line: &str) {
        println!("{:>6} ms  {line}", self.started_at.elapsed().as_millis());
    }
}

fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}
