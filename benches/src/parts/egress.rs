//! The way out: what a request of a program in a sandbox takes longer than one that the host makes itself. The host that
//! is asked is in this process and answers at once; one connection is kept for all requests.

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

use super::{Part, Scale};
use crate::api::Api;
use crate::bed::{Bed, fresh_dir};
use crate::report::{Bar, Row};
use crate::stats::Samples;

/// Where the host listens: a sandbox's own loopback is `127.0.0.1`.
const HOST: &str = "127.0.0.2";

pub(super) async fn measure(scale: Scale) -> anyhow::Result<Vec<Row>> {
    let (acceptor, certificate) = tls()?;
    let (plain, secure) = (listen(None).await?, listen(Some(acceptor)).await?);
    let dir = fresh_dir()?;
    let roots = dir.path().join("roots.pem");
    std::fs::write(&roots, certificate)?;
    let bed = Bed::new().await?.with_private_egress(HOST).with_roots(&roots);
    bed.respond_with(|request| match request.tool_results_since_user().is_empty() {
        true => Reply::new().tool_call("shell", json!({"command": request.last_user_text()})),
        false => Reply::text("ok"),
    });
    let (_server, api) = bed.start().await?;
    let (without, with) = (api.create_with(Some("local")).await?, api.create_with_secret(HOST).await?);
    let mut rows = Vec::new();
    for (what, how, deployment_id, address) in [
        ("HTTP through egress", "decided and read anew for each", &without, format!("http://{HOST}:{plain}")),
        ("HTTPS through egress, tunnelled", "decided once", &without, format!("https://{HOST}:{secure}")),
        (
            "HTTPS through egress, opened",
            "decided for each, a secret put in, the reply searched for it",
            &with,
            format!("https://{HOST}:{secure}"),
        ),
    ] {
        let (inside, outside) = requests(scale, &api, deployment_id, &address).await?;
        let direct = Samples::new(outside)?.median();
        let note = format!("`local` sandbox; {how}; the same without it {direct:.2} ms");
        rows.push(Part::Egress.row(format!("a request by {what}"), Bar::None, "ms", inside, note)?);
    }
    Ok(rows)
}

/// How long requests of one connection take from a sandbox, and from the machine itself, in milliseconds.
async fn requests(
    scale: Scale,
    api: &Api,
    deployment_id: &str,
    address: &str,
) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    // The first request makes the connection.
    let count = scale.of(500, 5) + 1;
    let command = format!(
        r#"curl -ks -o /dev/null -w '%{time_total}\n' -H "Authorization: Bearer $API_TOKEN" '{address}/[1-{count}]'"#,
        time_total = "{time_total}",
    );
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    let mut frames = api.stream(deployment_id, "").await?;
    for _ in 0..scale.of(5, 1) {
        api.send(deployment_id, "new", &command).await?;
        let result: Value = serde_json::from_str(frames.until("tool_result").await?.data)?;
        inside.extend(times_ms(result.get("result").and_then(Value::as_str).unwrap_or_default(), count)?);
        frames.until_completed().await?;
        let direct =
            tokio::process::Command::new("sh").args(["-c", &command]).stderr(Stdio::null()).output().await?;
        outside.extend(times_ms(&String::from_utf8_lossy(&direct.stdout), count)?);
    }
    Ok((inside, outside))
}

/// The times that curl printed, one a line, in seconds; without the first.
fn times_ms(printed: &str, count: usize) -> anyhow::Result<Vec<f64>> {
    let times: Vec<f64> =
        printed.lines().filter_map(|line| line.trim().parse().ok()).map(|time: f64| time * 1e3).collect();
    anyhow::ensure!(times.len() == count, "curl did not reach the host: {printed}");
    times.get(1..).map(<[f64]>::to_vec).context("there is no second request")
}

/// TLS for the host, and the certificate that is to be trusted for it, as PEM.
fn tls() -> anyhow::Result<(TlsAcceptor, String)> {
    let made = rcgen::generate_simple_self_signed([HOST.to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    Ok((TlsAcceptor::from(Arc::new(config)), made.cert.pem()))
}

/// Lets a host listen; gives its port.
async fn listen(acceptor: Option<TlsAcceptor>) -> anyhow::Result<u16> {
    let listener = TcpListener::bind((HOST, 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(meet(stream, acceptor.clone()));
        }
    });
    Ok(port)
}

async fn meet(stream: TcpStream, acceptor: Option<TlsAcceptor>) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    match acceptor {
        None => answer(stream).await,
        Some(acceptor) => answer(acceptor.accept(stream).await?).await,
    }
}

async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        // The end of a request's head; it has no body.
        if line == "\r\n" {
            let stream = stream.get_mut();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
            stream.flush().await?;
        }
    }
}
