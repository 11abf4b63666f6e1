//! Tests with real programs that agents use, for example curl and Git. The programs are configured only by the
//! environment variables of a sandbox command.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use herm_egress::{BUNDLE_PATH, CA_PATH, PROXY_ADDRESS, environment};
use herm_types::secret::Inject;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::peer::{Peer, ReplyBody, echo, text};
use crate::world::World;

const VALUE: &str = "sk-live-0123456789";

/// A test fixture: a proxy that listens on a TCP port, and the environment variables that make programs use it.
struct Machine {
    world: World,
    variables: Vec<(String, String)>,
    placeholder: String,
}

impl Machine {
    async fn new() -> Self {
        let world = World::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = listener.local_addr().unwrap().to_string();
        let (egress, owner) = (world.egress.clone(), world.owner.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (egress, owner) = (egress.clone(), owner.clone());
                tokio::spawn(async move { egress.serve(stream, owner).await });
            }
        });
        let write = |name: &str, text: String| {
            let path = world.dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let bundle = write("bundle.pem", world.egress.authority().bundle());
        let ca = write("ca.pem", world.egress.authority().ca_pem().to_owned());
        let here = |value: String| {
            value.replace(BUNDLE_PATH, &bundle).replace(CA_PATH, &ca).replace(PROXY_ADDRESS, &proxy)
        };
        let variables = environment("run_01").into_iter().map(|(name, value)| (name, here(value))).collect();
        let placeholder = world.owner.set_secret("key", VALUE, &["api.test"], &[Inject::Header]);
        Self { world, variables, placeholder }
    }

    fn dir(&self) -> &Path {
        self.world.dir.path()
    }

    /// Starts a TLS host named `api.test`. Returns the host and its URL.
    async fn host<H, F>(&self, handler: H) -> (Peer, String)
    where
        H: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
        F: Future<Output = Response<ReplyBody>> + Send + 'static,
    {
        let tls = self.world.hosts.tls(&["api.test"], &["h2", "http/1.1"]);
        let peer = Peer::start("127.0.0.1", Some(tls), handler).await;
        let address = format!("https://api.test:{}", peer.port());
        (peer, address)
    }

    /// Starts a TLS host that serves the files of a directory. Returns the host and its URL.
    async fn files(&self, root: PathBuf) -> (Peer, String) {
        let root = Arc::new(root);
        self.host(move |request: Request<Incoming>| {
            let path = root.join(request.uri().path().trim_start_matches('/'));
            async move {
                match tokio::fs::read(path).await {
                    Ok(bytes) => Response::new(text(bytes)),
                    Err(_) => Response::builder().status(StatusCode::NOT_FOUND).body(text("")).unwrap(),
                }
            }
        })
        .await
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().current_dir(self.dir()).kill_on_drop(true);
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", self.dir());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    async fn run(&self, program: &str, arguments: &[&str]) -> String {
        succeed(program, &self.command(program).args(arguments).output().await.unwrap())
    }

    /// Asserts that the program reached the host through the proxy, with the expected proxy user name.
    fn assert_proxied(&self, peer: &Peer) {
        assert!(peer.connections() > 0);
        let attempts = self.world.owner.attempts.lock().unwrap();
        assert!(attempts.iter().all(|one| one.user.as_deref() == Some("run_01")), "{attempts:?}");
    }
}

fn succeed(program: &str, output: &Output) -> String {
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program}: {out}\n{errors}");
    out.into_owned()
}

/// Responds with the length of the `x-key` header. The length shows that the proxy replaced the placeholder with the
/// secret value.
async fn length_of_key(request: Request<Incoming>) -> Response<ReplyBody> {
    let key = request.headers().get("x-key").map_or(0, |key| key.len());
    let version = request.version();
    Response::new(text(format!("{version:?} key of {key}\n")))
}

#[tokio::test(start_paused = true)]
async fn curl_uses_http1_http2_and_plain_http() {
    let machine = Machine::new().await;
    let (peer, address) = machine.host(length_of_key).await;
    let field = format!("x-key: {}", machine.placeholder);
    for (version, shown) in [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2.0")] {
        let out = machine.run("curl", &["-sS", version, "-H", &field, &address]).await;
        assert_eq!(out, format!("{shown} key of {}\n", VALUE.len()));
    }
    machine.assert_proxied(&peer);
    let plain = Peer::start("127.0.0.1", None, echo).await;
    let body = "x".repeat(2_000_000);
    std::fs::write(machine.dir().join("body"), &body).unwrap();
    let address = format!("http://other.test:{}/", plain.port());
    let out =
        machine.run("curl", &["-sS", "-H", "Expect: 100-continue", "--data-binary", "@body", &address]).await;
    assert!(out.ends_with(&body));
    let denied = machine.command("curl").args(["-sS", "https://127.0.0.2/"]).output().await.unwrap();
    let errors = String::from_utf8_lossy(&denied.stderr);
    assert!(!denied.status.success() && errors.contains("403"), "{errors}");
}

#[tokio::test(start_paused = true)]
async fn python_urllib_and_requests_use_the_proxy() {
    let machine = Machine::new().await;
    let (peer, address) = machine.host(length_of_key).await;
    let urllib = "import sys, urllib.request as u\n\
        print(u.urlopen(u.Request(sys.argv[1], headers={'x-key': sys.argv[2]})).read().decode(), end='')";
    let out = machine.run("python3", &["-c", urllib, &address, &machine.placeholder]).await;
    assert_eq!(out, format!("HTTP/1.1 key of {}\n", VALUE.len()));
    let pip_requests = "import sys, pip._vendor.requests as r\n\
        print(r.get(sys.argv[1], headers={'x-key': sys.argv[2]}).text, end='')";
    let out = machine.run("python3", &["-c", pip_requests, &address, &machine.placeholder]).await;
    assert_eq!(out, format!("HTTP/1.1 key of {}\n", VALUE.len()));
    machine.assert_proxied(&peer);
}

/// A Node.js program that sends CONNECT itself, because Node.js before version 24 ignores the proxy variables.
const NODE: &str = r"
const http = require('http'), https = require('https');
const [address, key] = process.argv.slice(1);
const proxy = new URL(process.env.HTTPS_PROXY), to = new URL(address);
const credentials = Buffer.from(`${proxy.username}:${proxy.password}`).toString('base64');
http.request({
  host: proxy.hostname, port: proxy.port, method: 'CONNECT', path: to.host,
  headers: { 'Proxy-Authorization': `Basic ${credentials}` },
}).on('connect', (answer, socket) => {
  https.get(address, { socket, agent: false, headers: { 'x-key': key }, servername: to.hostname }, (reply) => {
    reply.on('data', (piece) => process.stdout.write(piece));
  });
}).end();
";

#[tokio::test(start_paused = true)]
async fn node_trusts_the_authority() {
    let machine = Machine::new().await;
    let (peer, address) = machine.host(length_of_key).await;
    let out = machine.run("node", &["-e", NODE, &address, &machine.placeholder]).await;
    assert_eq!(out, format!("HTTP/1.1 key of {}\n", VALUE.len()));
    machine.assert_proxied(&peer);
}

#[tokio::test(start_paused = true)]
async fn git_lists_and_clones_a_repository() {
    let machine = Machine::new().await;
    let identity = ["-c", "user.name=A", "-c", "user.email=a@b.c"];
    machine.run("git", &["init", "-q", "work"]).await;
    machine
        .run("git", &[&identity[..], &["-C", "work", "commit", "-q", "--allow-empty", "-m", "one"]].concat())
        .await;
    machine.run("git", &["clone", "-q", "--bare", "work", "served.git"]).await;
    machine.run("git", &["-C", "served.git", "update-server-info"]).await;
    let (peer, address) = machine.files(machine.dir().to_owned()).await;
    let out = machine.run("git", &["ls-remote", &format!("{address}/served.git")]).await;
    assert!(out.contains("refs/heads/"), "{out}");
    machine.run("git", &["clone", "-q", &format!("{address}/served.git"), "copy"]).await;
    machine.assert_proxied(&peer);
}

#[tokio::test(start_paused = true)]
async fn pip_installs_from_an_index() {
    let machine = Machine::new().await;
    let package = machine.dir().join("package");
    std::fs::create_dir(&package).unwrap();
    // This script builds a Python wheel, which is a ZIP archive of modules and metadata, and an index page for it.
    let build = "import zipfile, sys\n\
        w = zipfile.ZipFile('index/tiny/tiny-1.0-py3-none-any.whl', 'w')\n\
        i = 'tiny-1.0.dist-info/'\n\
        w.writestr('tiny.py', 'x = 1\\n')\n\
        w.writestr(i + 'METADATA', 'Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\n')\n\
        w.writestr(i + 'WHEEL', 'Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n\
        w.writestr(i + 'RECORD', '')\n\
        w.close()\n\
        open('index/tiny/index', 'w').write('<a href=\"tiny-1.0-py3-none-any.whl\">tiny-1.0-py3-none-any.whl</a>')";
    std::fs::create_dir_all(machine.dir().join("index/tiny")).unwrap();
    machine.run("python3", &["-c", build]).await;
    let root = machine.dir().join("index");
    let (peer, address) = machine
        .host(move |request: Request<Incoming>| {
            let path = root.join(request.uri().path().trim_start_matches('/'));
            async move {
                let is_page = path.is_dir();
                let bytes = tokio::fs::read(if is_page { path.join("index") } else { path }).await.unwrap();
                let kind = if is_page { "text/html" } else { "application/octet-stream" };
                Response::builder().header("content-type", kind).body(text(bytes)).unwrap()
            }
        })
        .await;
    let arguments =
        ["-m", "pip", "install", "-q", "--no-deps", "--target", "installed", "--index-url", &address, "tiny"];
    machine.run("python3", &arguments).await;
    assert!(machine.dir().join("installed/tiny.py").exists());
    machine.assert_proxied(&peer);
}

#[tokio::test(start_paused = true)]
async fn npm_installs_from_a_registry() {
    let machine = Machine::new().await;
    let package = machine.dir().join("package");
    std::fs::create_dir(&package).unwrap();
    std::fs::write(package.join("package.json"), r#"{"name": "tiny", "version": "1.0.0"}"#).unwrap();
    machine.run("tar", &["-czf", "tiny.tgz", "package"]).await;
    let archive = machine.dir().join("tiny.tgz");
    let (peer, address) = machine
        .host(move |request: Request<Incoming>| {
            let archive = archive.clone();
            async move {
                if request.uri().path() == "/tiny.tgz" {
                    return Response::new(text(tokio::fs::read(archive).await.unwrap()));
                }
                let host = request.uri().authority().map(ToString::to_string);
                let host = host.unwrap_or_else(|| request.headers()["host"].to_str().unwrap().to_owned());
                let version = format!(
                    r#"{{"name": "tiny", "version": "1.0.0", "dist": {{"tarball": "https://{host}/tiny.tgz"}}}}"#
                );
                let shown = format!(
                    r#"{{"name": "tiny", "dist-tags": {{"latest": "1.0.0"}}, "versions": {{"1.0.0": {version}}}}}"#
                );
                Response::builder().header("content-type", "application/json").body(text(shown)).unwrap()
            }
        })
        .await;
    std::fs::create_dir(machine.dir().join("app")).unwrap();
    std::fs::write(machine.dir().join("app/package.json"), "{}").unwrap();
    let arguments = [
        "install",
        "--prefix",
        "app",
        "--no-audit",
        "--no-fund",
        "--no-update-notifier",
        "--registry",
        &address,
        "tiny",
    ];
    machine.run("npm", &arguments).await;
    assert!(machine.dir().join("app/node_modules/tiny/package.json").exists());
    machine.assert_proxied(&peer);
}
