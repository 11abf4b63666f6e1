//! From an accepted message to its first token on a stream that was open before.

use std::time::Instant;

use super::{Part, Scale, ms};
use crate::bed::{Bed, settle};
use crate::report::{Bar, Row};
use crate::stats::Samples;

/// How long one message took, in milliseconds.
struct Taken {
    from_accepted: f64,
    from_sent: f64,
}

pub(super) async fn measure(scale: Scale) -> anyhow::Result<Vec<Row>> {
    let bed = Bed::new().await?;
    let (_server, api) = bed.start().await?;
    let (mut accepted, mut sent) = (Vec::new(), Vec::new());
    for _ in 0..scale.of(5, 1) {
        let deployment_id = api.create().await?;
        let mut frames = api.stream(&deployment_id, "").await?;
        let thread_id = api.send(&deployment_id, "new", "hello").await?;
        frames.until_completed().await?;
        settle().await;
        let mut taken = Vec::new();
        for _ in 0..scale.of(500, 5) {
            let begun = Instant::now();
            let send = async {
                api.send(&deployment_id, &thread_id, "hello").await?;
                anyhow::Ok(Instant::now())
            };
            let token = async {
                frames.until("token").await?;
                anyhow::Ok(Instant::now())
            };
            let (accepted, token) = tokio::try_join!(send, token)?;
            taken.push(Taken {
                // It may be here before the answer is.
                from_accepted: ms(token.saturating_duration_since(accepted)),
                from_sent: ms(token.duration_since(begun)),
            });
            frames.until_completed().await?;
        }
        accepted.push(Samples::new(taken.iter().map(|taken| taken.from_accepted).collect())?);
        sent.push(Samples::new(taken.iter().map(|taken| taken.from_sent).collect())?);
    }
    let of = |samples: &[Samples], percent| samples.iter().map(|of_one| of_one.percentile(percent)).collect();
    let note = "500 messages of one thread, which grows";
    Ok(vec![
        Part::FirstToken.row(
            "accepted → first token, p50",
            Bar::Below(8.0),
            "ms",
            of(&accepted, 50),
            note,
        )?,
        Part::FirstToken.row(
            "accepted → first token, p99",
            Bar::Below(30.0),
            "ms",
            of(&accepted, 99),
            note,
        )?,
        Part::FirstToken.row(
            "sent → first token, p50",
            Bar::None,
            "ms",
            of(&sent, 50),
            "with the request itself",
        )?,
        Part::FirstToken.row(
            "sent → first token, p99",
            Bar::None,
            "ms",
            of(&sent, 99),
            "with the request itself",
        )?,
    ])
}
