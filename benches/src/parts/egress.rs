//! Measures the overhead of the egress proxy, through which all network traffic of a sandbox passes. Compares the time
//! of a request sent from a sandbox with the time of the same request sent directly from this machine. The server that
//! receives the requests (the upstream server) runs inside the benchmark process and responds immediately. Each curl
//! command sends all its requests over one connection.

use std::process::Stdio;
use std::sync::Arc;

use anyhow::Context as _;
use herm_testkit::model_server::Reply;
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{Mode, Part};
use crate::api::Api;
use crate::report::{Row, Target};
use crate::setup::{ServerSetup, fresh_dir};
use crate::stats::Samples;

/// The IP address of the upstream server. It is not 127.0.0.1, because a sandbox sends requests to 127.0.0.1 without
/// the proxy: its variable `NO_PROXY` contains that address.
const HOST: &str = "127.0.0.2";

pub(super) async fn measure(mode: Mode) -> anyhow::Result<Vec<Row>> {
    let (acceptor, certificate) = tls()?;
    let (http_port, https_port) = (start_host(None).await?, start_host(Some(acceptor)).await?);
    let dir = fresh_dir()?;
    let roots = dir.path().join("roots.pem");
    std::fs::write(&roots, certificate)?;
    let setup = ServerSetup::new().await?.with_private_egress(HOST).with_roots(&roots);
    setup.respond_with(|request| match request.tool_results_since_user().is_empty() {
        true => Reply::new().tool_call("shell", json!({"command": request.last_user_text()})),
        false => Reply::text("ok"),
    });
    let (_server, api) = setup.start().await?;
    let (without_secret, with_secret) =
        (api.create_with(Some("local")).await?, api.create_with_secret(HOST).await?);
    let mut rows = Vec::new();
    for (label, policy, deployment_id, address) in [
        (
            "an HTTP request through the egress proxy",
            "policy read and checked for each request",
            &without_secret,
            format!("http://{HOST}:{http_port}"),
        ),
        (
            "an HTTPS request through the egress proxy, tunnelled",
            "policy checked once",
            &without_secret,
            format!("https://{HOST}:{https_port}"),
        ),
        (
            "an HTTPS request through the egress proxy, intercepted",
            "policy checked for each request, a secret inserted and masked in the response",
            &with_secret,
            format!("https://{HOST}:{https_port}"),
        ),
    ] {
        let (inside, outside) = measure_requests(mode, &api, deployment_id, &address).await?;
        let direct = Samples::new(outside)?.median();
        let note = format!("`local` sandbox; {policy}; {direct:.2} ms without the proxy");
        rows.push(Part::Egress.row(label, Target::None, "ms", inside, note)?);
    }
    Ok(rows)
}

/// Sends the same requests from a sandbox and directly from this machine. Returns the times of the requests from the
/// sandbox and of the direct requests, in milliseconds.
async fn measure_requests(
    mode: Mode,
    api: &Api,
    deployment_id: &str,
    address: &str,
) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    // One additional request opens the connection and is not counted.
    let count = mode.count(500, 5) + 1;
    let command = format!(
        r#"curl -ks -o /dev/null -w '%{time_total}\n' -H "Authorization: Bearer $API_TOKEN" '{address}/[1-{count}]'"#,
        time_total = "{time_total}",
    );
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    let mut stream = api.stream(deployment_id, "").await?;
    for _ in 0..mode.count(5, 1) {
        api.send(deployment_id, "new", &command).await?;
        let result: Value = serde_json::from_str(stream.wait_for("tool_result").await?.data)?;
        inside.extend(times_ms(result.get("result").and_then(Value::as_str).unwrap_or_default(), count)?);
        stream.wait_for_completion().await?;
        let direct =
            tokio::process::Command::new("sh").args(["-c", &command]).stderr(Stdio::null()).output().await?;
        outside.extend(times_ms(&String::from_utf8_lossy(&direct.stdout), count)?);
    }
    Ok((inside, outside))
}

/// Parses the times that curl has printed, one per line and in seconds. The first time is omitted, because it includes
/// opening the connection.
fn times_ms(printed: &str, count: usize) -> anyhow::Result<Vec<f64>> {
    let times: Vec<f64> =
        printed.lines().filter_map(|line| line.trim().parse().ok()).map(|time: f64| time * 1e3).collect();
    anyhow::ensure!(times.len() == count, "curl did not complete all {count} requests: {printed}");
    times.get(1..).map(<[f64]>::to_vec).context("curl completed no second request")
}

/// Creates a self-signed certificate for [`HOST`]. Returns a TLS acceptor that uses it, and the certificate as PEM.
fn tls() -> anyhow::Result<(TlsAcceptor, String)> {
    let generated = rcgen::generate_simple_self_signed([HOST.to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(generated.signing_key.serialize_der()).into();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![generated.cert.der().clone()], key)?;
    Ok((TlsAcceptor::from(Arc::new(config)), generated.cert.pem()))
}

/// Starts the upstream server and returns its port. It speaks HTTPS if `acceptor` is set, and HTTP otherwise.
async fn start_host(acceptor: Option<TlsAcceptor>) -> anyhow::Result<u16> {
    let listener = TcpListener::bind((HOST, 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve_connection(stream, acceptor.clone()));
        }
    });
    Ok(port)
}

async fn serve_connection(stream: TcpStream, acceptor: Option<TlsAcceptor>) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    match acceptor {
        None => serve_requests(stream).await,
        Some(acceptor) => serve_requests(acceptor.accept(stream).await?).await,
    }
}

async fn serve_requests(stream: impl AsyncRead + AsyncWrite + Unpin) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        // The blank line ends the header fields of the request. The requests have no body.
        if line == "\r\n" {
            let stream = stream.get_mut();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
            stream.flush().await?;
        }
    }
}
