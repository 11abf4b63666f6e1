//! Measures the time from sending a message until the first token of its reply arrives on an open event stream.

use std::time::Instant;

use super::{Mode, Part, ms};
use crate::report::{Row, Target};
use crate::setup::{ServerSetup, wait_for_background_work};
use crate::stats::Samples;

/// The time until the first token of the reply to one message arrives, in milliseconds.
struct Latency {
    /// Measured from the response to the POST request that sent the message.
    from_accepted: f64,
    /// Measured from the start of the POST request that sent the message.
    from_sent: f64,
}

pub(super) async fn measure(mode: Mode) -> anyhow::Result<Vec<Row>> {
    let setup = ServerSetup::new().await?;
    let (_server, api) = setup.start().await?;
    let (mut accepted, mut sent) = (Vec::new(), Vec::new());
    for _ in 0..mode.count(5, 1) {
        let deployment_id = api.create().await?;
        let mut stream = api.stream(&deployment_id, "").await?;
        let thread_id = api.send(&deployment_id, "new", "hello").await?;
        stream.wait_for_completion().await?;
        wait_for_background_work().await;
        let mut latencies = Vec::new();
        for _ in 0..mode.count(500, 5) {
            let started = Instant::now();
            let send = async {
                api.send(&deployment_id, &thread_id, "hello").await?;
                anyhow::Ok(Instant::now())
            };
            let token = async {
                stream.wait_for("token").await?;
                anyhow::Ok(Instant::now())
            };
            let (accepted, token) = tokio::try_join!(send, token)?;
            latencies.push(Latency {
                // The result is 0 if the token arrives before the response to the POST request.
                from_accepted: ms(token.saturating_duration_since(accepted)),
                from_sent: ms(token.duration_since(started)),
            });
            stream.wait_for_completion().await?;
        }
        accepted.push(Samples::new(latencies.iter().map(|latency| latency.from_accepted).collect())?);
        sent.push(Samples::new(latencies.iter().map(|latency| latency.from_sent).collect())?);
    }
    let percentiles =
        |samples: &[Samples], percent| samples.iter().map(|one| one.percentile(percent)).collect();
    let note = "500 messages in one growing thread";
    Ok(vec![
        Part::FirstToken.row(
            "accepted → first token, p50",
            Target::Below(8.0),
            "ms",
            percentiles(&accepted, 50),
            note,
        )?,
        Part::FirstToken.row(
            "accepted → first token, p99",
            Target::Below(30.0),
            "ms",
            percentiles(&accepted, 99),
            note,
        )?,
        Part::FirstToken.row(
            "sent → first token, p50",
            Target::None,
            "ms",
            percentiles(&sent, 50),
            "includes the request itself",
        )?,
        Part::FirstToken.row(
            "sent → first token, p99",
            Target::None,
            "ms",
            percentiles(&sent, 99),
            "includes the request itself",
        )?,
    ])
}
