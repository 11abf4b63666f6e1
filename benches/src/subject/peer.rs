//! The other agent servers (peers) that Herm is compared with: their versions, how to start them, and clients for their
//! APIs.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, ensure};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::install::{Installation, write_sources};

/// The API key of the Hermes gateway. It need not be secret, because the API listens only on the loopback interface.
const HERMES_KEY: &str = "a-key-for-the-benchmark-on-loopback";
/// The maximum number of runs that the LangGraph server executes concurrently.
const LANGGRAPH_JOBS: &str = "20";
/// The owner of all threads on the Mastra server. Mastra calls an owner of threads a resource.
const RESOURCE: &str = "acme";
/// The maximum number of characters of a peer's log that an error message contains. Only the end of the log is shown.
const LOG_SHOWN_CHARS: usize = 400;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Hermes,
    LangGraph,
    Mastra,
}

impl Peer {
    pub(crate) const ALL: [Self; 3] = [Self::Hermes, Self::LangGraph, Self::Mastra];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hermes => "Hermes gateway",
            Self::LangGraph => "LangGraph server",
            Self::Mastra => "Mastra server",
        }
    }

    pub(super) fn slug(self) -> &'static str {
        match self {
            Self::Hermes => "hermes",
            Self::LangGraph => "langgraph",
            Self::Mastra => "mastra",
        }
    }

    /// Returns the version of the package that provides the server.
    pub(crate) fn version(self) -> &'static str {
        match self {
            Self::Hermes => "0.19.0",
            Self::LangGraph => "0.4.40",
            Self::Mastra => "1.31.0",
        }
    }

    /// Returns a description of the peer's setup in Markdown, for the performance page.
    pub(crate) fn setup_text(self) -> &'static str {
        match self {
            Self::Hermes => {
                "`hermes-agent` 0.19.0 from PyPI: `hermes gateway run` with its API server, without toolsets and without \
                 a limit on concurrent runs; sessions in its own SQLite database. The process is the only agent. A \
                 thread is a session, a turn is `POST /api/sessions/ID/chat/stream`."
            }
            Self::LangGraph => {
                "`langgraph-cli[inmem]` 0.4.40 with `langgraph` 1.2.22 from PyPI: `langgraph dev --no-reload \
                 --n-jobs-per-worker 20`, without tracing; state in memory, which it writes to files from time to \
                 time. An agent is an assistant of a graph with one node, a turn is `POST /threads/ID/runs/stream`. \
                 It is a development server; the production server requires a licence."
            }
            Self::Mastra => {
                "`mastra` 1.31.0 with `@mastra/core` 1.71.0 from npm: `mastra build`, then the built server with Node \
                 and `NODE_ENV=production`; threads in a LibSQL file. Agents are code, so none can be created \
                 through the API. A turn is `POST /api/agents/ID/stream` with a thread id."
            }
        }
    }

    /// Returns true if agents can be created through the peer's API.
    pub(crate) fn can_create_agents(self) -> bool {
        self == Self::LangGraph
    }

    pub(super) fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Hermes => &["hermes-agent==0.19.0", "aiohttp==3.14.5"],
            Self::LangGraph => {
                &["langgraph-cli[inmem]==0.4.40", "langgraph==1.2.22", "langchain-openai==1.7.4"]
            }
            // The packages of Mastra are listed in the file package.json among its sources.
            Self::Mastra => &[],
        }
    }

    pub(super) fn sources(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Hermes => &[("config.yaml", include_str!("../../peers/hermes/config.yaml"))],
            Self::LangGraph => &[
                ("graph.py", include_str!("../../peers/langgraph/graph.py")),
                ("langgraph.json", include_str!("../../peers/langgraph/langgraph.json")),
            ],
            Self::Mastra => &[
                ("package.json", include_str!("../../peers/mastra/package.json")),
                ("src/mastra/index.ts", include_str!("../../peers/mastra/src/mastra/index.ts")),
            ],
        }
    }
}

pub(crate) struct PeerServer {
    /// The peer's process. The mutex is needed because `try_wait` requires mutable access.
    child: Mutex<Child>,
    pid: u32,
    client: Client,
    log: PathBuf,
}

impl PeerServer {
    /// Starts the peer on a free port. Its data and its log are stored in the directory `state`.
    pub(super) fn start(installation: &Installation, model: &str, state: &Path) -> anyhow::Result<Self> {
        let peer = installation.peer;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port().to_string();
        let log = state.join("log.txt");
        let mut command = command(installation, model, state, &port)?;
        let mut path = installation.dir.join("venv/bin").into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        command
            .env("PATH", path)
            .env("HOME", state)
            .stdin(Stdio::null())
            .stdout(fs::File::create(&log)?)
            .stderr(fs::OpenOptions::new().append(true).open(&log)?)
            .kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("failed to start the {}", peer.name()))?;
        let pid = child.id().context("the peer process exited immediately")?;
        let client =
            Client { http: reqwest::Client::new(), base_url: format!("http://127.0.0.1:{port}"), peer };
        Ok(Self { child: Mutex::new(child), pid, client, log })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    pub(super) fn has_ended(&self) -> bool {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(child.try_wait(), Ok(Some(_)))
    }

    /// Returns the tail of the peer's log, at most [`LOG_SHOWN_CHARS`] characters.
    pub(super) fn log(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let skipped = text.chars().count().saturating_sub(LOG_SHOWN_CHARS);
        text.chars().skip(skipped).collect()
    }

    pub(super) async fn is_ready(&self) -> bool {
        let path = match self.client.peer {
            Peer::Hermes => "/health",
            Peer::LangGraph => "/ok",
            Peer::Mastra => "/api/agents",
        };
        let response = self.client.http.get(format!("{}{path}", self.client.base_url)).send().await;
        response.is_ok_and(|response| response.status().is_success())
    }

    pub(super) async fn create_agent(&self) -> anyhow::Result<String> {
        match self.client.peer {
            Peer::Hermes => Ok("hermes".to_owned()),
            Peer::LangGraph => {
                let body = json!({"graph_id": "agent", "name": "Ada"});
                self.client.create("/assistants", &body, "/assistant_id").await
            }
            Peer::Mastra => Ok("ada".to_owned()),
        }
    }

    pub(super) async fn create_thread(&self, agent: &str) -> anyhow::Result<String> {
        match self.client.peer {
            Peer::Hermes => self.client.create("/api/sessions", &json!({}), "/session/id").await,
            Peer::LangGraph => self.client.create("/threads", &json!({}), "/thread_id").await,
            Peer::Mastra => {
                let path = format!("/api/memory/threads?agentId={agent}");
                self.client.create(&path, &json!({"resourceId": RESOURCE, "title": "chat"}), "/id").await
            }
        }
    }

    pub(super) async fn kill(self) -> anyhow::Result<()> {
        herm_testkit::process::kill_children(self.pid);
        let mut child = self.child.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(child.kill().await?)
    }
}

fn command(installation: &Installation, model: &str, state: &Path, port: &str) -> anyhow::Result<Command> {
    let bin = installation.dir.join("venv/bin");
    let mut command = match installation.peer {
        Peer::Hermes => {
            let config = include_str!("../../peers/hermes/config.yaml").replace("MODEL_BASE_URL", model);
            fs::write(state.join("config.yaml"), config)?;
            let mut command = Command::new(bin.join("hermes"));
            command.env_clear().args(["gateway", "run"]).env("HERMES_HOME", state);
            command.env("API_SERVER_ENABLED", "true").env("API_SERVER_KEY", HERMES_KEY);
            command.env("API_SERVER_PORT", port);
            command
        }
        Peer::LangGraph => {
            write_sources(installation.peer, state)?;
            let mut command = Command::new(bin.join("langgraph"));
            command.env_clear().args(["dev", "--no-browser", "--no-reload", "--host", "127.0.0.1"]);
            command.args(["--port", port, "--n-jobs-per-worker", LANGGRAPH_JOBS]);
            command.env("LANGSMITH_TRACING", "false").env("MODEL_BASE_URL", model);
            command
        }
        Peer::Mastra => {
            let store = format!("file:{}", state.join("mastra.db").display());
            let mut command = Command::new("node");
            command.env_clear().arg(installation.dir.join(".mastra/output/index.mjs"));
            command.env("PORT", port).env("NODE_ENV", "production").env("MASTRA_TELEMETRY_DISABLED", "1");
            command.env("MODEL_BASE_URL", model).env("STORAGE_URL", store);
            command
        }
    };
    command.current_dir(state);
    Ok(command)
}

/// An HTTP client for the API of one peer.
#[derive(Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    base_url: String,
    peer: Peer,
}

impl Client {
    /// Sends a message to a thread. The body of the response streams the reply.
    pub(super) async fn send(&self, agent: &str, thread: &str, content: &str) -> anyhow::Result<Response> {
        let messages = json!([{"role": "user", "content": content}]);
        let (path, body) = match self.peer {
            Peer::Hermes => (format!("/api/sessions/{thread}/chat/stream"), json!({"message": content})),
            Peer::LangGraph => {
                let input = json!({"messages": messages});
                let body = json!({"assistant_id": agent, "input": input, "stream_mode": ["messages-tuple"]});
                (format!("/threads/{thread}/runs/stream"), body)
            }
            Peer::Mastra => {
                let memory = json!({"thread": thread, "resource": RESOURCE});
                (format!("/api/agents/{agent}/stream"), json!({"messages": messages, "memory": memory}))
            }
        };
        let response = self.authorized(self.http.post(format!("{}{path}", self.base_url))).json(&body).send();
        Ok(response.await?.error_for_status()?)
    }

    /// Returns a string that appears in the response stream at the first token of the reply `ok`, and not earlier.
    pub(super) fn first_token_marker(&self) -> &'static str {
        match self.peer {
            Peer::Hermes => "event: assistant.delta",
            Peer::LangGraph => r#""content":"ok""#,
            Peer::Mastra => r#""type":"text-delta""#,
        }
    }

    /// Returns a string that the response stream contains if the turn was successful, or `None` if the peer sends no
    /// such string.
    pub(super) fn completion_marker(&self) -> Option<&'static str> {
        match self.peer {
            Peer::Hermes => Some("event: run.completed"),
            Peer::LangGraph => None,
            Peer::Mastra => Some(r#""type":"finish""#),
        }
    }

    /// Returns the messages of a thread as JSON text, or `None` if the peer responds with an error.
    pub(super) async fn history(&self, thread: &str) -> anyhow::Result<Option<String>> {
        let path = match self.peer {
            Peer::Hermes => format!("/api/sessions/{thread}/messages"),
            Peer::LangGraph => format!("/threads/{thread}/state"),
            Peer::Mastra => {
                format!("/api/memory/threads/{thread}/messages?agentId=ada&resourceId={RESOURCE}")
            }
        };
        let response = self.authorized(self.http.get(format!("{}{path}", self.base_url))).send().await?;
        Ok(if response.status().is_success() { Some(response.text().await?) } else { None })
    }

    async fn create(&self, path: &str, body: &Value, id: &str) -> anyhow::Result<String> {
        let request = self.authorized(self.http.post(format!("{}{path}", self.base_url))).json(body);
        let response = request.send().await?;
        let (status, body) = (response.status(), response.text().await?);
        ensure!(status.is_success(), "POST {path} failed with status {status}: {body}");
        let created: Value = serde_json::from_str(&body)?;
        let text = created.pointer(id).and_then(Value::as_str);
        Ok(text.with_context(|| format!("the response to POST {path} has no {id}: {created}"))?.to_owned())
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        if self.peer == Peer::Hermes { request.bearer_auth(HERMES_KEY) } else { request }
    }
}
