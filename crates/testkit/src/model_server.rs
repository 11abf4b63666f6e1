//! A model provider that answers from a script, on loopback and in the real wire formats.
//!
//! It serves Anthropic Messages at `/v1/messages` and Chat Completions at `/v1/chat/completions`; a [`Reply`] is
//! written in the format of the path that was asked. Which reply: the oldest one pushed, else what the function
//! of [`ModelServer::respond_with`] gives, else a 400, which no caller retries.

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

/// Largest request that is read, in bytes.
const MAX_REQUEST_BYTES: usize = 64 << 20;

type Responder = Arc<dyn Fn(&RecordedRequest) -> Reply + Send + Sync>;

/// The scripted provider. Dropping it refuses new connections and breaks off the replies that are under way.
pub struct ModelServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
}

struct Shared {
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
    /// Starts it on a free port of 127.0.0.1, in a task of the current Tokio runtime.
    ///
    /// # Panics
    /// If no port can be opened: without it, no test that asked for it means anything.
    pub async fn start() -> Self {
        #[expect(clippy::expect_used, reason = "a test that has no provider must fail here")]
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("failed to open a port on loopback");
        #[expect(clippy::expect_used, reason = "a bound listener has an address")]
        let address = listener.local_addr().expect("failed to read the address of a listener");
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::new(Shared {
            replies: Mutex::default(),
            responder: Mutex::default(),
            requests: Mutex::default(),
            is_recording: AtomicBool::new(true),
            request_count: watch::Sender::new(0),
            connection_count: AtomicUsize::new(0),
            next_id: AtomicU64::new(1),
            stopped: stopped.clone(),
        });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let counter = Arc::clone(&shared);
        let listener = listener.tap_io(move |connection| {
            counter.connection_count.fetch_add(1, Ordering::Relaxed);
            // Slower without it, and as correct.
            let _ = connection.set_nodelay(true);
        });
        let serving = axum::serve(listener, router).with_graceful_shutdown(until_stopped(stopped));
        tokio::spawn(serving.into_future());
        Self { address, shared, stop }
    }

    /// The base URL for a provider that speaks Anthropic Messages: `http://127.0.0.1:PORT`.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The base URL for a provider that speaks Chat Completions: `http://127.0.0.1:PORT/v1`.
    pub fn openai_base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Adds a reply to the end of the script; each is used for one request, whichever comes next.
    pub fn push(&self, reply: Reply) {
        lock(&self.shared.replies).push_back(reply);
    }

    /// Answers with what a function makes of the request, whenever no pushed reply is left. Replaces an earlier
    /// function.
    pub fn respond_with(&self, responder: impl Fn(&RecordedRequest) -> Reply + Send + Sync + 'static) {
        *lock(&self.shared.responder) = Some(Arc::new(responder));
    }

    /// Whether requests are kept for [`ModelServer::requests`]; they are unless switched off, which spares memory
    /// in long load tests. They are counted in any case.
    pub fn record(&self, is_recording: bool) {
        self.shared.is_recording.store(is_recording, Ordering::Relaxed);
    }

    /// The requests so far, in the order in which they had been read.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        lock(&self.shared.requests).clone()
    }

    /// How many requests have been read so far, recorded or not.
    pub fn request_count(&self) -> usize {
        *self.shared.request_count.borrow()
    }

    /// How many connections have been accepted so far; fewer than requests if clients reuse them.
    pub fn connection_count(&self) -> usize {
        self.shared.connection_count.load(Ordering::Relaxed)
    }

    /// Waits until at least so many requests have been read since the start.
    pub async fn wait_for_requests(&self, n: usize) {
        // The sender lives as long as this server does, so the wait cannot fail.
        let _ = self.shared.request_count.subscribe().wait_for(|count| *count >= n).await;
    }
}

impl Drop for ModelServer {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// Waits until the server is dropped.
async fn until_stopped(mut stopped: watch::Receiver<bool>) {
    // An error says that the sender is gone, and with it the server.
    let _ = stopped.wait_for(|is_stopped| *is_stopped).await;
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_REQUEST_BYTES).await else {
        return plain(StatusCode::BAD_REQUEST, "the request's body broke off or is too large");
    };
    let request = RecordedRequest::new(parts.uri.path().to_owned(), parts.headers, body);
    let reply = shared.reply_to(&request);
    if shared.is_recording.load(Ordering::Relaxed) {
        lock(&shared.requests).push(request.clone());
    }
    shared.request_count.send_modify(|count| *count += 1);
    let Some(format) = request.wire_format() else {
        return plain(StatusCode::NOT_FOUND, "there are only /v1/messages and /v1/chat/completions");
    };
    shared.render(reply, format).await
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
}

impl Shared {
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
