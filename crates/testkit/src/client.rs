//! A client that says what it gets, faults included: tests look at every answer themselves.

use http::header::ACCEPT;
use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;

use crate::events::EventStream;

/// Speaks to a server with one key. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base_url: String,
    key: String,
}

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
}

impl Answer {
    /// The body, or `null` where it is no JSON.
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

    /// The same client towards another address: a server that was started again.
    #[must_use]
    pub fn at(&self, base_url: &str) -> Self {
        Self { base_url: base_url.to_owned(), ..self.clone() }
    }

    /// What it authenticates with.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// # Errors
    /// The connection: refused, or cut before the answer was whole.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> reqwest::Result<Answer> {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(body);
        }
        read(request.send().await?).await
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base_url)).bearer_auth(&self.key)
    }

    pub async fn get(&self, path: &str) -> reqwest::Result<Answer> {
        self.call(Method::GET, path, None).await
    }

    /// Asks for one of the forms in which a resource can be had: `application/json` of events, for one.
    pub async fn get_as(&self, path: &str, media_type: &str) -> reqwest::Result<Answer> {
        read(self.request(Method::GET, path).header(ACCEPT, media_type).send().await?).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> reqwest::Result<Answer> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// A POST that may be sent again: with an idempotency key.
    pub async fn post_once(&self, path: &str, key: &str, body: &Value) -> reqwest::Result<Answer> {
        let request = self.request(Method::POST, path).header("Idempotency-Key", key).json(body);
        read(request.send().await?).await
    }

    pub async fn delete(&self, path: &str) -> reqwest::Result<Answer> {
        self.call(Method::DELETE, path, None).await
    }

    /// Opens the stream at `path`, after the event `after` where one is given.
    ///
    /// # Errors
    /// The connection, or a status that is not 200.
    pub async fn stream(&self, path: &str, after: Option<&str>) -> reqwest::Result<EventStream> {
        let mut request = self.request(Method::GET, path).header(ACCEPT, "text/event-stream");
        if let Some(after) = after {
            request = request.header("Last-Event-ID", after);
        }
        Ok(EventStream::new(request.send().await?.error_for_status()?))
    }
}

async fn read(response: reqwest::Response) -> reqwest::Result<Answer> {
    let (status, headers) = (response.status(), response.headers().clone());
    Ok(Answer { status, headers, bytes: response.bytes().await?.to_vec() })
}
