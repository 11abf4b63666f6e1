//! Tests that call a scripted model server over HTTP in both wire formats.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helper functions of tests may panic")]

mod calls;
mod model_errors;

use std::sync::Arc;

use futures_util::StreamExt;
use herm_llm::{Error, Limits, ProviderKind, ProviderOptions, Providers};
use herm_testkit::model_server::{ModelServer, Reply};
use herm_types::model::{ModelError, ModelEvent, ModelReply, ModelRequest, ToolSchema, Turn};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;

pub(crate) const KEY: &str = "sk-hush-hush";
pub(crate) const KINDS: [ProviderKind; 2] = [ProviderKind::Anthropic, ProviderKind::OpenAiChat];

/// Returns the name of the test provider that uses this wire format.
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

/// Creates the providers `anthropic` and `openai`, both pointing at this server.
pub(crate) fn providers_with_limits(server: &ModelServer, limits: Limits) -> Providers {
    let options = vec![
        options("anthropic", ProviderKind::Anthropic, &server.base_url(), Some(KEY)),
        options("openai", ProviderKind::OpenAiChat, &server.openai_base_url(), Some(KEY)),
    ];
    Providers::new(options, limits, no_trusted_roots()).unwrap()
}

pub(crate) fn try_providers(options: Vec<ProviderOptions>) -> Result<Providers, Error> {
    Providers::new(options, Limits::DEFAULT, no_trusted_roots())
}

fn no_trusted_roots() -> ClientConfig {
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

/// Makes a model call. Returns the text deltas, and the reply or the error.
pub(crate) async fn call(
    providers: &Providers,
    provider: &str,
    request: &ModelRequest,
) -> (Vec<String>, Result<ModelReply, ModelError>) {
    let mut stream = match providers.stream(provider, request).await {
        Ok(stream) => stream,
        Err(model_error) => return (Vec::new(), Err(model_error)),
    };
    let mut deltas = Vec::new();
    let end = loop {
        match stream.next().await.expect("the stream ended without a reply or an error") {
            Ok(ModelEvent::TextDelta(delta)) => deltas.push(delta),
            Ok(ModelEvent::Finished(reply)) => break Ok(reply),
            Err(model_error) => break Err(model_error),
        }
    };
    assert_eq!(stream.next().await, None);
    (deltas, end)
}

/// Makes a model call that must fail because of the server's response `reply`. Returns the text that arrived
/// before the error, and the error.
pub(crate) async fn error_of(kind: ProviderKind, reply: Reply) -> (String, ModelError) {
    let server = ModelServer::start().await;
    server.push(reply);
    let (deltas, end) = call(&providers(&server), name_of(kind), &hello()).await;
    assert_eq!(server.request_count(), 1, "nothing is retried");
    (deltas.concat(), end.expect_err("the call must fail"))
}
