//! The configured model providers, and the calls to them.

use std::collections::HashMap;
use std::sync::Arc;

use herm_types::model::{ModelError, ModelErrorKind, ModelRequest};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response, Url};
use rustls::ClientConfig;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;

use crate::limits::{CONNECT, ERROR_BODY_BYTES, IDLE_CONNECTIONS, REQUEST_BYTES};
use crate::model_error::{CallError, ErrorContext, ProviderError};
use crate::openai::MaxTokensField;
use crate::{Limits, ModelStream, anthropic, openai, retry_after};

const EVENT_STREAM: &str = "text/event-stream";
/// The providers that require an API key, each with the environment variable that contains the key.
const KEY_VARIABLES: [(&str, &str); 3] =
    [("anthropic", "ANTHROPIC_API_KEY"), ("openai", "OPENAI_API_KEY"), ("openrouter", "OPENROUTER_API_KEY")];

/// The wire format of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProviderKind {
    /// Anthropic Messages: `POST {base_url}/v1/messages`. If the base URL already ends in `/v1`, only
    /// `/messages` is appended.
    Anthropic,
    /// OpenAI Chat Completions: `POST {base_url}/chat/completions`.
    OpenAiChat,
}

/// The configuration of a model provider.
#[derive(Clone, Debug)]
pub struct ProviderOptions {
    /// The name of the provider: the part of a model name before the first `/`. Must be unique.
    pub name: String,
    /// The wire format of the provider.
    pub kind: ProviderKind,
    /// The base URL. Its scheme must be `http` or `https`. The path that is appended depends on the wire
    /// format.
    pub base_url: String,
    /// The API key, which is sent with each request. Local servers often need none. A provider without a key
    /// can be called if it uses [`ProviderKind::OpenAiChat`] and is neither `openai` nor `openrouter`.
    pub api_key: Option<SecretString>,
}

/// An error in the configuration of the providers. No message contains an API key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("two providers are named `{name}`")]
    DuplicateName { name: String },
    #[error("the base URL of provider `{name}` is not an http or https URL")]
    InvalidBaseUrl { name: String },
    #[error("the API key of provider `{name}` contains characters that an HTTP header cannot contain")]
    InvalidKey { name: String },
    #[error("failed to create the HTTP client for model providers")]
    Client(#[source] reqwest::Error),
}

/// The configured model providers and their connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Providers {
    registry: Arc<Registry>,
}

#[derive(Debug)]
struct Registry {
    limits: Limits,
    names: Vec<String>,
    providers: HashMap<String, Provider>,
}

#[derive(Debug)]
struct Provider {
    kind: ProviderKind,
    max_tokens: MaxTokensField,
    endpoint: Url,
    headers: HeaderMap,
    /// The HTTP client. `None` if the provider requires an API key but has none, so that it cannot be called.
    client: Option<Client>,
    error_context: ErrorContext,
}

impl Providers {
    /// Creates the HTTP clients of the providers, with the TLS configuration `tls`. Does not call any
    /// provider.
    ///
    /// # Errors
    /// Fails if a name occurs twice, a base URL is not an `http` or `https` URL, or an API key cannot be part
    /// of a header.
    pub fn new(options: Vec<ProviderOptions>, limits: Limits, tls: ClientConfig) -> Result<Self, Error> {
        let mut clients = Clients { tls, direct: None, proxied: None };
        let mut registry = Registry { limits, names: Vec::new(), providers: HashMap::new() };
        for options in options {
            let name = options.name.clone();
            let provider = Provider::new(options, &mut clients)?;
            if registry.providers.insert(name.clone(), provider).is_some() {
                return Err(Error::DuplicateName { name });
            }
            registry.names.push(name);
        }
        Ok(Self { registry: Arc::new(registry) })
    }

    /// Returns the names of the providers in their configured order, including providers without an API key.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.registry.names.iter().map(String::as_str)
    }

    /// Returns true if the provider is configured and has an API key or needs none.
    pub fn can_call(&self, provider: &str) -> bool {
        self.registry.providers.get(provider).is_some_and(|provider| provider.client.is_some())
    }

    /// Makes one attempt at a model call and streams the reply. Nothing is retried. Returns when the response
    /// headers have arrived.
    ///
    /// # Errors
    /// The message of each error names the provider and includes what the provider reported, in at most 500
    /// characters. The kind is `ProviderNotConfigured` for a provider that is not configured or lacks its API
    /// key. It is `ContextOverflow` for a request larger than 32 MiB, which is not sent.
    pub async fn stream(&self, provider: &str, request: &ModelRequest) -> Result<ModelStream, ModelError> {
        let Some(called) = self.registry.providers.get(provider) else {
            return Err(not_configured(provider, &self.unknown()));
        };
        let Some(client) = &called.client else {
            return Err(not_configured(provider, &missing_key(provider)));
        };
        let limits = self.registry.limits;
        match called.call(client, request, limits).await {
            Ok(response) => Ok(ModelStream::new(response, called.kind, limits, called.error_context.clone())),
            Err(error) => Err(called.error_context.to_model_error(&error)),
        }
    }

    fn unknown(&self) -> String {
        format!(
            "is not configured; configured providers: {}. Add others under [providers.NAME] in the \
             configuration file",
            self.registry.names.join(", ")
        )
    }
}

fn not_configured(provider: &str, message: &str) -> ModelError {
    let error_context = ErrorContext { provider: provider.to_owned(), api_key: None };
    error_context.to_model_error(&CallError::new(ModelErrorKind::ProviderNotConfigured, message))
}

fn missing_key(provider: &str) -> String {
    match KEY_VARIABLES.iter().find(|(name, _)| *name == provider) {
        Some((_, variable)) => format!("has no API key: set the environment variable {variable}"),
        None => format!(
            "has no API key: set the environment variable named by api_key_env under [providers.{provider}] in \
             the configuration file"
        ),
    }
}

impl Provider {
    fn new(options: ProviderOptions, clients: &mut Clients) -> Result<Self, Error> {
        let ProviderOptions { name, kind, base_url, api_key } = options;
        let endpoint =
            endpoint(kind, &base_url).ok_or_else(|| Error::InvalidBaseUrl { name: name.clone() })?;
        let api_key = api_key.filter(|key| !key.expose_secret().is_empty());
        let headers = headers(kind, api_key.as_ref())
            .map_err(|_: http::header::InvalidHeaderValue| Error::InvalidKey { name: name.clone() })?;
        let is_key_optional =
            kind == ProviderKind::OpenAiChat && !KEY_VARIABLES.iter().any(|(built_in, _)| *built_in == name);
        let max_tokens = match name.as_str() {
            "openai" => MaxTokensField::MaxCompletionTokens,
            _ => MaxTokensField::MaxTokens,
        };
        let client = match api_key.is_some() || is_key_optional {
            true => Some(clients.client_for(&endpoint).map_err(Error::Client)?),
            false => None,
        };
        Ok(Self {
            kind,
            max_tokens,
            client,
            endpoint,
            headers,
            error_context: ErrorContext { provider: name, api_key },
        })
    }

    /// Sends the request. Returns the response if it is successful and an event stream, and otherwise an
    /// error.
    async fn call(
        &self,
        client: &Client,
        request: &ModelRequest,
        limits: Limits,
    ) -> Result<Response, CallError> {
        let body = match self.kind {
            ProviderKind::Anthropic => anthropic::body(request),
            ProviderKind::OpenAiChat => openai::body(request, self.max_tokens),
        };
        let body = body.map_err(|error| {
            CallError::new(
                ModelErrorKind::InvalidRequest,
                format!("cannot be called: failed to serialize the request: {error}"),
            )
        })?;
        if body.len() > REQUEST_BYTES {
            let message =
                format!("accepts requests of at most {REQUEST_BYTES} bytes, but this one has {}", body.len());
            return Err(CallError::new(ModelErrorKind::ContextOverflow, message));
        }
        let request = client.post(self.endpoint.clone()).headers(self.headers.clone()).body(body);
        let Ok(response) = timeout(limits.headers, request.send()).await else {
            let message = format!("did not start to respond within {} s", limits.headers.as_secs_f64());
            return Err(CallError::new(ModelErrorKind::Stalled, message));
        };
        let response = response.map_err(|error| CallError::network("cannot be reached", error))?;
        tracing::debug!(
            provider = self.error_context.provider,
            status = response.status().as_u16(),
            "model provider responded"
        );
        if !response.status().is_success() {
            return Err(error_response(response, limits).await);
        }
        if is_event_stream(response.headers()) {
            Ok(response)
        } else {
            Err(not_a_stream(response, limits).await)
        }
    }
}

/// Returns the error for a response with a status other than 2xx.
async fn error_response(response: Response, limits: Limits) -> CallError {
    let status = response.status();
    let retry_after = retry_after::parse(response.headers());
    let body = error_body(response, limits).await;
    ProviderError::from_body(&body).into_response_error(status, retry_after)
}

async fn not_a_stream(response: Response, limits: Limits) -> CallError {
    let content_type = response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let content_type = String::from_utf8_lossy(content_type.unwrap_or(b"no content type")).into_owned();
    let body = error_body(response, limits).await;
    let body = String::from_utf8_lossy(&body);
    CallError::malformed(format!("answered with {content_type} instead of {EVENT_STREAM}: {body}"))
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case(EVENT_STREAM)
}

/// Reads the body of an error response, at most its first [`ERROR_BODY_BYTES`] bytes. If the connection fails
/// or stalls, returns the bytes that have arrived.
async fn error_body(mut response: Response, limits: Limits) -> Vec<u8> {
    let mut body = Vec::new();
    while body.len() < ERROR_BODY_BYTES {
        match timeout(limits.silence, response.chunk()).await {
            Ok(Ok(Some(piece))) => body.extend_from_slice(&piece),
            _ => break,
        }
    }
    body.truncate(ERROR_BODY_BYTES);
    body
}

fn endpoint(kind: ProviderKind, base_url: &str) -> Option<Url> {
    let base_url = base_url.trim_end_matches('/');
    let endpoint = match kind {
        ProviderKind::Anthropic => {
            format!("{}/v1/messages", base_url.strip_suffix("/v1").unwrap_or(base_url))
        }
        ProviderKind::OpenAiChat => format!("{base_url}/chat/completions"),
    };
    let endpoint = Url::parse(&endpoint).ok()?;
    (matches!(endpoint.scheme(), "http" | "https") && endpoint.has_host()).then_some(endpoint)
}

fn headers(
    kind: ProviderKind,
    api_key: Option<&SecretString>,
) -> Result<HeaderMap, http::header::InvalidHeaderValue> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static(EVENT_STREAM));
    if kind == ProviderKind::Anthropic {
        let version = HeaderValue::from_static(anthropic::VERSION);
        headers.insert(HeaderName::from_static("anthropic-version"), version);
    }
    if let Some(key) = api_key.map(ExposeSecret::expose_secret) {
        let (name, mut value) = match kind {
            ProviderKind::Anthropic => (HeaderName::from_static("x-api-key"), HeaderValue::from_str(key)?),
            ProviderKind::OpenAiChat => (AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {key}"))?),
        };
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

/// The HTTP clients for direct and for proxied connections, created when they are first needed.
struct Clients {
    tls: ClientConfig,
    direct: Option<Client>,
    proxied: Option<Client>,
}

impl Clients {
    /// Returns the client for a URL. It connects directly to loopback addresses; for other hosts, it uses the
    /// proxy set in the environment variables.
    fn client_for(&mut self, endpoint: &Url) -> Result<Client, reqwest::Error> {
        let (slot, builder) = match is_loopback(endpoint) {
            true => (&mut self.direct, Client::builder().no_proxy()),
            false => (&mut self.proxied, Client::builder()),
        };
        if let Some(client) = slot {
            return Ok(client.clone());
        }
        let client = builder
            .tls_backend_preconfigured(self.tls.clone())
            .connect_timeout(CONNECT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true)
            .user_agent(concat!("herm/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(slot.insert(client).clone())
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
