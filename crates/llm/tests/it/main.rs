//! Calls over HTTP against the scripted provider, in both wire formats.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "what the tests share fails as tests do")]

mod calls;
mod faults;

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use futures_util::StreamExt;
use herm_llm::{Error, Limits, ProviderKind, ProviderOptions, Providers};
use herm_testkit::model_server::{ModelServer, Reply};
use herm_types::model::{ModelEvent, ModelFault, ModelReply, ModelRequest, ToolSchema, Turn};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;

pub(crate) const KEY: &str = "sk-hush-hush";
pub(crate) const KINDS: [ProviderKind; 2] = [ProviderKind::Anthropic, ProviderKind::OpenAiChat];

/// Keeps a paused time from jumping to what is due next, until it is dropped: so a limit does not end what a busy machine
/// does slowly.
pub(crate) struct StandingTime {
    _held: Sender<()>,
}

impl StandingTime {
    /// Holds the time of a test that has `start_paused = true`.
    pub(crate) fn hold() -> Self {
        let (held, until_dropped) = channel();
        // Tokio lets time jump only when no blocking task is at work.
        tokio::task::spawn_blocking(move || until_dropped.recv());
        Self { _held: held }
    }
}

/// The name of the provider that speaks a wire format.
pub(crate) fn name_of(kind: ProviderKind) -> &'static str {
    match kind {
        ProviderKind::Anthropic => "anthropic",
        ProviderKind::OpenAiChat => "openai",
    }
}

pub(crate) fn options(name: &str, kind: ProviderKind, base_url: &str, key: Option<&str>) -> ProviderOptions {
    ProviderOptions {
        name: name.to_owned(),
        kind,
        base_url: base_url.to_owned(),
        api_key: key.map(|key| key.to_owned().into()),
    }
}

/// Two providers, `anthropic` and `openai`, that are both this server.
pub(crate) fn providers_with_limits(server: &ModelServer, limits: Limits) -> Providers {
    let options = vec![
        options("anthropic", ProviderKind::Anthropic, &server.base_url(), Some(KEY)),
        options("openai", ProviderKind::OpenAiChat, &server.openai_base_url(), Some(KEY)),
    ];
    Providers::new(options, limits, trusting_nobody()).unwrap()
}

pub(crate) fn try_providers(options: Vec<ProviderOptions>) -> Result<Providers, Error> {
    Providers::new(options, Limits::DEFAULT, trusting_nobody())
}

fn trusting_nobody() -> ClientConfig {
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap();
    config.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
}

pub(crate) fn providers(server: &ModelServer) -> Providers {
    providers_with_limits(server, Limits::DEFAULT)
}

pub(crate) fn request(turns: Vec<Turn>) -> ModelRequest {
    ModelRequest {
        model: "some-model".to_owned(),
        system: "Be kind.".to_owned(),
        tools: vec![ToolSchema {
            name: "shell".to_owned(),
            description: "Runs a command.".to_owned(),
            parameters: json!({"type": "object", "properties": {"command": {"type": "string"}}}),
        }],
        turns,
        max_output_tokens: 1024,
    }
}

pub(crate) fn hello() -> ModelRequest {
    request(vec![Turn::User { text: "Hello".to_owned() }])
}

/// A whole call: the deltas, and how it ended.
pub(crate) async fn call(
    providers: &Providers,
    provider: &str,
    request: &ModelRequest,
) -> (Vec<String>, Result<ModelReply, ModelFault>) {
    let mut stream = match providers.stream(provider, request).await {
        Ok(stream) => stream,
        Err(fault) => return (Vec::new(), Err(fault)),
    };
    let mut deltas = Vec::new();
    let end = loop {
        match stream.next().await.expect("ended without a reply or a fault") {
            Ok(ModelEvent::TextDelta(delta)) => deltas.push(delta),
            Ok(ModelEvent::Finished(reply)) => break Ok(reply),
            Err(fault) => break Err(fault),
        }
    };
    assert_eq!(stream.next().await, None);
    (deltas, end)
}

/// The fault of a call that this reply is the answer to, and the text before it.
pub(crate) async fn fault_of(kind: ProviderKind, reply: Reply) -> (String, ModelFault) {
    let server = ModelServer::start().await;
    server.push(reply);
    let (deltas, end) = call(&providers(&server), name_of(kind), &hello()).await;
    assert_eq!(server.request_count(), 1, "nothing is retried");
    (deltas.concat(), end.expect_err("the call succeeded"))
}
