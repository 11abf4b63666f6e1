//! The way out: what a request of a program in a sandbox takes longer than one that the host makes itself. The host that
//! is asked is in this process and answers at once; one connection is kept for all requests.

use std::process::Stdio;

use anyhow::Context as _;
use herm_testkit::model_server::Reply;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::{Part, Scale};
use crate::bed::Bed;
use crate::report::{Bar, Row};
use crate::stats::Samples;

/// Where the host listens: a sandbox's own loopback is `127.0.0.1`.
const HOST: &str = "127.0.0.2";

pub(super) async fn measure(scale: Scale) -> anyhow::Result<Vec<Row>> {
    let listener = TcpListener::bind((HOST, 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    // The first request makes the connection.
    let count = scale.of(500, 5) + 1;
    let command = format!(r"curl -s -o /dev/null -w '%{{time_total}}\n' 'http://{HOST}:{port}/[1-{count}]'");
    let bed = Bed::new().await?.with_private_egress(HOST);
    let asked = command.clone();
    bed.respond_with(move |request| match request.tool_results_since_user().is_empty() {
        true => Reply::new().tool_call("shell", json!({"command": asked})),
        false => Reply::text("ok"),
    });
    let (_server, api) = bed.start().await?;
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    let deployment_id = api.create_with(Some("local")).await?;
    let mut frames = api.stream(&deployment_id, "").await?;
    for _ in 0..scale.of(5, 1) {
        api.send(&deployment_id, "new", "Go.").await?;
        let result: Value = serde_json::from_str(frames.until("tool_result").await?.data)?;
        inside.extend(times_ms(result.get("result").and_then(Value::as_str).unwrap_or_default(), count)?);
        frames.until_completed().await?;
        let direct =
            tokio::process::Command::new("sh").args(["-c", &command]).stderr(Stdio::null()).output().await?;
        outside.extend(times_ms(&String::from_utf8_lossy(&direct.stdout), count)?);
    }
    let direct = Samples::new(outside)?.median();
    let note = format!("plain HTTP, decided and read anew for each; the same without it {direct:.2} ms");
    Ok(vec![Part::Egress.row("a request through egress, `local` sandbox", Bar::None, "ms", inside, note)?])
}

/// The times that curl printed, one a line, in seconds; without the first.
fn times_ms(printed: &str, count: usize) -> anyhow::Result<Vec<f64>> {
    let times: Vec<f64> =
        printed.lines().filter_map(|line| line.trim().parse().ok()).map(|time: f64| time * 1e3).collect();
    anyhow::ensure!(times.len() == count, "curl did not reach the host: {printed}");
    times.get(1..).map(<[f64]>::to_vec).context("there is no second request")
}

async fn answer(stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        // The end of a request's head; it has no body.
        if line == "\r\n" {
            stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
        }
    }
}
