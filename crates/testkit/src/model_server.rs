//! A model provider on the loopback interface that sends scripted replies in the wire formats of real providers.
//!
//! It serves Anthropic Messages at `/v1/messages` and Chat Completions at `/v1/chat/completions`. The path of a request
//! selects the wire format of the [`Reply`].
//!
//! A request receives the oldest reply that was added with [`ModelServer::push`] and not used yet. If there is none, it
//! receives the reply that the function passed to [`ModelServer::respond_with`] returns. If there is no such function
//! either, it receives status 400, which clients do not retry.

mod anthropic;
mod gate;
mod openai;
mod reply;
mod request;
mod script;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::serve::ListenerExt;
use http::{HeaderValue, StatusCode, header};
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use gate::Gate;
pub use reply::{Reply, Stop};
pub use request::{RecordedRequest, WireFormat};

use self::script::Script;

/// The maximum size of a request body, in bytes. Larger requests receive status 400.
const MAX_REQUEST_BYTES: usize = 64 << 20;

type Responder = Arc<dyn Fn(&RecordedRequest) -> Reply + Send + Sync>;

/// The scripted model provider. When it is dropped, it accepts no more connections and breaks off the replies in
/// progress.
pub struct ModelServer {
    address: SocketAddr,
    state: Arc<ServerState>,
    stop: watch::Sender<bool>,
}

struct ServerState {
    replies: Mutex<VecDeque<Reply>>,
    responder: Mutex<Option<Responder>>,
    requests: Mutex<Vec<RecordedRequest>>,
    is_recording: AtomicBool,
    request_count: watch::Sender<usize>,
    connection_count: AtomicUsize,
    next_id: AtomicU64,
    stopped: watch::Receiver<bool>,
}

impl ModelServer {
    /// Starts the provider on a free port of 127.0.0.1, in a task of the current Tokio runtime.
    ///
    /// # Panics
    /// Panics if it cannot listen on a port.
    pub async fn start() -> Self {
        #[expect(clippy::expect_used, reason = "a test without a model provider must fail here")]
        let listener =
            TcpListener::bind(("127.0.0.1", 0)).await.expect("failed to listen on the loopback interface");
        #[expect(clippy::expect_used, reason = "a listening socket has an address")]
        let address = listener.local_addr().expect("failed to read the address of the scripted provider");
        let (stop, stopped) = watch::channel(false);
        let state = Arc::new(ServerState {
            replies: Mutex::default(),
            responder: Mutex::default(),
            requests: Mutex::default(),
            is_recording: AtomicBool::new(true),
            request_count: watch::Sender::new(0),
            connection_count: AtomicUsize::new(0),
            next_id: AtomicU64::new(1),
            stopped: stopped.clone(),
        });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&state));
        let counter = Arc::clone(&state);
        let listener = listener.tap_io(move |connection| {
            counter.connection_count.fetch_add(1, Ordering::Relaxed);
            // Without TCP_NODELAY the connection is slower but works, so an error is ignored.
            let _ = connection.set_nodelay(true);
        });
        let serving = axum::serve(listener, router).with_graceful_shutdown(until_stopped(stopped));
        tokio::spawn(serving.into_future());
        Self { address, state, stop }
    }

    /// Returns the provider's base URL for Anthropic Messages: `http://127.0.0.1:PORT`.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the provider's base URL for Chat Completions: `http://127.0.0.1:PORT/v1`.
    pub fn openai_base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Appends a reply to the script. Each request uses up one reply.
    pub fn push(&self, reply: Reply) {
        lock(&self.state.replies).push_back(reply);
    }

    /// Sets the function that creates the reply when no reply added with [`ModelServer::push`] is left. Replaces any
    /// previous function.
    pub fn respond_with(&self, responder: impl Fn(&RecordedRequest) -> Reply + Send + Sync + 'static) {
        *lock(&self.state.responder) = Some(Arc::new(responder));
    }

    /// Enables or disables recording. While it is enabled, which is the default, [`ModelServer::requests`] returns all
    /// requests received. Long load tests disable it to save memory. Requests are always counted.
    pub fn record(&self, is_recording: bool) {
        self.state.is_recording.store(is_recording, Ordering::Relaxed);
    }

    /// Returns the recorded requests, oldest first.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        lock(&self.state.requests).clone()
    }

    /// Returns the number of requests received so far, including those that were not recorded.
    pub fn request_count(&self) -> usize {
        *self.state.request_count.borrow()
    }

    /// Returns the number of connections accepted so far. It is lower than the number of requests if clients reuse
    /// connections.
    pub fn connection_count(&self) -> usize {
        self.state.connection_count.load(Ordering::Relaxed)
    }

    /// Waits until the provider has received at least `n` requests since it started.
    pub async fn wait_for_requests(&self, n: usize) {
        // `wait_for` fails only if the sender is dropped, but `self` holds the sender.
        let _ = self.state.request_count.subscribe().wait_for(|count| *count >= n).await;
    }
}

impl Drop for ModelServer {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// Waits until the [`ModelServer`] is dropped.
async fn until_stopped(mut stopped: watch::Receiver<bool>) {
    // `wait_for` fails if the sender is dropped, which also means that the server was dropped.
    let _ = stopped.wait_for(|is_stopped| *is_stopped).await;
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(State(state): State<Arc<ServerState>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_REQUEST_BYTES).await else {
        return plain(StatusCode::BAD_REQUEST, "the request's body broke off or is too large");
    };
    let request = RecordedRequest::new(parts.uri.path().to_owned(), parts.headers, body);
    let reply = state.reply_to(&request);
    if state.is_recording.load(Ordering::Relaxed) {
        lock(&state.requests).push(request.clone());
    }
    state.request_count.send_modify(|count| *count += 1);
    let Some(format) = request.wire_format() else {
        return plain(StatusCode::NOT_FOUND, "there are only /v1/messages and /v1/chat/completions");
    };
    state.render(reply, format).await
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
}

impl ServerState {
    fn reply_to(&self, request: &RecordedRequest) -> Reply {
        if request.wire_format().is_none() {
            return Reply::new();
        }
        if let Some(reply) = lock(&self.replies).pop_front() {
            return reply;
        }
        let responder = lock(&self.responder).clone();
        match responder {
            Some(responder) => responder(request),
            None => Reply::status(
                400,
                serde_json::json!({"error": {"type": "invalid_request_error", "message": "the script has no reply left"}}),
            ),
        }
    }

    async fn render(&self, reply: Reply, format: WireFormat) -> Response {
        if let Some(gate) = reply.headers_gate() {
            tokio::select! {
                () = gate.pass() => {}
                () = until_stopped(self.stopped.clone()) => {}
            }
        }
        let mut ids = || self.next_id.fetch_add(1, Ordering::Relaxed);
        let (status, content_type, headers) = (reply.http_status(), reply.content_type(), reply.headers());
        let script: Script = reply.script(format, &mut ids);
        let mut response = Response::new(script.into_body(self.stopped.clone()));
        *response.status_mut() = status;
        response.headers_mut().extend(headers);
        if let Ok(content_type) = HeaderValue::from_str(&content_type) {
            response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        }
        response
    }
}
