//! An HTTP client for tests. A response with an error status is returned like any other response, so that the test can
//! check it.

use http::header::ACCEPT;
use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;

use crate::events::EventStream;

/// A client for one server. It authenticates with one API key.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base_url: String,
    key: String,
}

/// A response with any status, including error statuses.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
}

impl Response {
    /// Parses the body as JSON. Returns `null` if it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_default()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

impl Client {
    pub fn new(base_url: &str, key: &str) -> Self {
        Self { http: reqwest::Client::new(), base_url: base_url.to_owned(), key: key.to_owned() }
    }

    /// Returns a client with the same API key for another base URL, for example for the new URL of a restarted server.
    #[must_use]
    pub fn at(&self, base_url: &str) -> Self {
        Self { base_url: base_url.to_owned(), ..self.clone() }
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    /// Sends a request, with `body` as JSON if there is one, and returns the response.
    ///
    /// # Errors
    /// Fails if the server refused the connection or closed it before the response was complete.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> reqwest::Result<Response> {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(body);
        }
        read(request.send().await?).await
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base_url)).bearer_auth(&self.key)
    }

    pub async fn get(&self, path: &str) -> reqwest::Result<Response> {
        self.call(Method::GET, path, None).await
    }

    /// Sends a GET request whose `Accept` header is this media type, for example `application/json` for a list of
    /// events.
    pub async fn get_as(&self, path: &str, media_type: &str) -> reqwest::Result<Response> {
        read(self.request(Method::GET, path).header(ACCEPT, media_type).send().await?).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> reqwest::Result<Response> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// Sends a POST request with the idempotency key `key`, so that a retry does not take effect twice.
    pub async fn post_once(&self, path: &str, key: &str, body: &Value) -> reqwest::Result<Response> {
        let request = self.request(Method::POST, path).header("Idempotency-Key", key).json(body);
        read(request.send().await?).await
    }

    pub async fn delete(&self, path: &str) -> reqwest::Result<Response> {
        self.call(Method::DELETE, path, None).await
    }

    /// Opens the event stream at `path`. If `after` is an event id, the stream resumes after that event.
    ///
    /// # Errors
    /// Fails if the connection fails or the status of the response is an error.
    pub async fn stream(&self, path: &str, after: Option<&str>) -> reqwest::Result<EventStream> {
        let mut request = self.request(Method::GET, path).header(ACCEPT, "text/event-stream");
        if let Some(after) = after {
            request = request.header("Last-Event-ID", after);
        }
        Ok(EventStream::new(request.send().await?.error_for_status()?))
    }
}

async fn read(response: reqwest::Response) -> reqwest::Result<Response> {
    let (status, headers) = (response.status(), response.headers().clone());
    Ok(Response { status, headers, bytes: response.bytes().await?.to_vec() })
}
