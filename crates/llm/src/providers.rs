//! The configured providers, and the one call they answer.

use std::collections::HashMap;
use std::sync::Arc;

use herm_types::model::{ModelFault, ModelFaultKind, ModelRequest};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response, Url};
use rustls::ClientConfig;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;

use crate::fault::{Blame, Complaint, Problem};
use crate::limits::{CONNECT, ERROR_BODY_BYTES, IDLE_CONNECTIONS, REQUEST_BYTES};
use crate::openai::MaxTokensField;
use crate::{Limits, ModelStream, anthropic, openai, retry_after};

const EVENT_STREAM: &str = "text/event-stream";
/// The providers that never answer without a key, with the variable that is read for it.
const KEY_VARIABLES: [(&str, &str); 3] =
    [("anthropic", "ANTHROPIC_API_KEY"), ("openai", "OPENAI_API_KEY"), ("openrouter", "OPENROUTER_API_KEY")];

/// The wire format that a provider speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProviderKind {
    /// Anthropic Messages: `POST {base_url}/v1/messages`; a base URL that ends in `/v1` is taken as well.
    Anthropic,
    /// OpenAI Chat Completions: `POST {base_url}/chat/completions`.
    OpenAiChat,
}

/// A provider to call.
#[derive(Clone, Debug)]
pub struct ProviderOptions {
    /// The part of a model name before its first `/`; each name once.
    pub name: String,
    /// The wire format it speaks.
    pub kind: ProviderKind,
    /// An `http` or `https` address; what is appended depends on the kind.
    pub base_url: String,
    /// Sent with each request. Without one, only a provider of kind [`ProviderKind::OpenAiChat`] that is neither
    /// `openai` nor `openrouter` is called, as servers on one's own machine often take none.
    pub api_key: Option<SecretString>,
}

/// Why providers cannot be set up. No message holds a key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there are two providers named `{name}`")]
    DuplicateName { name: String },
    #[error("the base URL of provider `{name}` is not an http or https address")]
    InvalidBaseUrl { name: String },
    #[error("the key of provider `{name}` holds characters that a header cannot carry")]
    InvalidKey { name: String },
    #[error("failed to set up the HTTP client")]
    Client(#[source] reqwest::Error),
}

/// The configured providers with their connections; cheap to clone.
#[derive(Clone, Debug)]
pub struct Providers {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
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
    /// Missing if the provider lacks its key.
    client: Option<Client>,
    blame: Blame,
}

impl Providers {
    /// `tls`: whom their clients trust. Nothing is called yet.
    ///
    /// Fails on a doubled name, a base URL that is not `http` or `https`, and a key that no header can carry.
    pub fn new(options: Vec<ProviderOptions>, limits: Limits, tls: ClientConfig) -> Result<Self, Error> {
        let mut clients = Clients { tls, direct: None, proxied: None };
        let mut inner = Inner { limits, names: Vec::new(), providers: HashMap::new() };
        for options in options {
            let name = options.name.clone();
            let provider = Provider::new(options, &mut clients)?;
            if inner.providers.insert(name.clone(), provider).is_some() {
                return Err(Error::DuplicateName { name });
            }
            inner.names.push(name);
        }
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The names of the providers in the order they were given, keys or not.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.inner.names.iter().map(String::as_str)
    }

    /// Whether a provider is configured and has the key that it needs.
    pub fn can_call(&self, provider: &str) -> bool {
        self.inner.providers.get(provider).is_some_and(|found| found.client.is_some())
    }

    /// Calls a model once and gives its reply as it comes in; nothing is retried. Returns once the provider has
    /// begun to answer.
    ///
    /// Every fault names the provider and what it said, in at most 500 characters. A provider that is not
    /// configured or lacks its key is `ProviderNotConfigured`; a request larger than 32 MiB is a
    /// `ContextOverflow` without being sent.
    pub async fn stream(&self, provider: &str, request: &ModelRequest) -> Result<ModelStream, ModelFault> {
        let Some(found) = self.inner.providers.get(provider) else {
            return Err(not_configured(provider, &self.unknown()));
        };
        let Some(client) = &found.client else {
            return Err(not_configured(provider, &missing_key(provider)));
        };
        let limits = self.inner.limits;
        match found.call(client, request, limits).await {
            Ok(response) => Ok(ModelStream::new(response, found.kind, limits, found.blame.clone())),
            Err(problem) => Err(found.blame.fault(&problem)),
        }
    }

    fn unknown(&self) -> String {
        format!(
            "is not configured; there are {}, and others can be added under [providers.NAME] in the \
             configuration file",
            self.inner.names.join(", ")
        )
    }
}

fn not_configured(provider: &str, said: &str) -> ModelFault {
    let blame = Blame { provider: provider.to_owned(), api_key: None };
    blame.fault(&Problem::new(ModelFaultKind::ProviderNotConfigured, said))
}

fn missing_key(provider: &str) -> String {
    match KEY_VARIABLES.iter().find(|(name, _)| *name == provider) {
        Some((_, variable)) => format!("has no API key: set the environment variable {variable}"),
        None => format!(
            "has no API key: set the environment variable that api_key_env under [providers.{provider}] in the \
             configuration file names"
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
        let takes_no_key =
            kind == ProviderKind::OpenAiChat && !KEY_VARIABLES.iter().any(|(built_in, _)| *built_in == name);
        let max_tokens = match name.as_str() {
            "openai" => MaxTokensField::MaxCompletionTokens,
            _ => MaxTokensField::MaxTokens,
        };
        let client = match api_key.is_some() || takes_no_key {
            true => Some(clients.client_for(&endpoint).map_err(Error::Client)?),
            false => None,
        };
        Ok(Self { kind, max_tokens, client, endpoint, headers, blame: Blame { provider: name, api_key } })
    }

    /// Sends the request; gives the response once it is known to be a stream of events.
    async fn call(
        &self,
        client: &Client,
        request: &ModelRequest,
        limits: Limits,
    ) -> Result<Response, Problem> {
        let body = match self.kind {
            ProviderKind::Anthropic => anthropic::body(request),
            ProviderKind::OpenAiChat => openai::body(request, self.max_tokens),
        };
        let body = body.map_err(|error| {
            Problem::new(ModelFaultKind::InvalidRequest, format!("cannot be sent the request: {error}"))
        })?;
        if body.len() > REQUEST_BYTES {
            let said = format!("takes no request of {} bytes; the limit is {REQUEST_BYTES}", body.len());
            return Err(Problem::new(ModelFaultKind::ContextOverflow, said));
        }
        let request = client.post(self.endpoint.clone()).headers(self.headers.clone()).body(body);
        let Ok(response) = timeout(limits.headers, request.send()).await else {
            let said = format!("did not begin to answer within {} s", limits.headers.as_secs_f64());
            return Err(Problem::new(ModelFaultKind::Stalled, said));
        };
        let response = response.map_err(|error| Problem::network("cannot be reached", error))?;
        tracing::debug!(
            provider = self.blame.provider,
            status = response.status().as_u16(),
            "model answered"
        );
        if !response.status().is_success() {
            return Err(refusal(response, limits).await);
        }
        if is_event_stream(response.headers()) {
            Ok(response)
        } else {
            Err(not_a_stream(response, limits).await)
        }
    }
}

/// What an answer that is no success says.
async fn refusal(response: Response, limits: Limits) -> Problem {
    let status = response.status();
    let retry_after = retry_after::find(response.headers());
    let body = error_body(response, limits).await;
    Complaint::from_body(&body).answered(status, retry_after)
}

async fn not_a_stream(response: Response, limits: Limits) -> Problem {
    let content_type = response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let content_type = String::from_utf8_lossy(content_type.unwrap_or(b"no content type")).into_owned();
    let body = error_body(response, limits).await;
    let body = String::from_utf8_lossy(&body);
    Problem::malformed(format!("answered with {content_type} instead of {EVENT_STREAM}: {body}"))
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case(EVENT_STREAM)
}

/// The beginning of a body. One that breaks off or goes silent is used as far as it came: the status says enough.
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

/// The HTTP clients, each made when first needed.
struct Clients {
    tls: ClientConfig,
    direct: Option<Client>,
    proxied: Option<Client>,
}

impl Clients {
    /// The client for an address. The proxy that the environment names is used, but never towards this machine.
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
