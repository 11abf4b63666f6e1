//! First tokens and turns against the number of conversations at once, for Herm and for others on the same machine.
//!
//! All servers run throughout; each number of conversations is measured on one after the other.

use std::time::Duration;

use futures_util::future::try_join_all;

use super::Scale;
use super::peers::contestants;
use crate::bed::settle;
use crate::drive::{Driven, drive};
use crate::plot::{Line, Plot};
use crate::report::{Measured, PlotFile, Section};
use crate::stats::three_digits;
use crate::subject::Running;

/// Conversations at once.
const LEVELS: [usize; 6] = [1, 5, 20, 50, 100, 200];
const WINDOW: Duration = Duration::from_secs(5);
/// Who keeps half of all messages waiting for so long is not asked to bear more.
const PATIENCE_MS: f64 = 5_000.0;

/// One server, and what was measured of it: conversations, milliseconds, turns a second.
struct Curve {
    name: String,
    running: Running,
    points: Vec<(usize, Driven)>,
    /// Why there are no more points.
    ended: Option<String>,
    /// Dropped last: its directory, its model.
    _subject: crate::subject::Subject,
}

pub(super) async fn measure(scale: Scale) -> anyhow::Result<Measured> {
    let (contestants, failures) = contestants(scale).await?;
    let mut curves = Vec::new();
    for contestant in contestants {
        let (running, _) = contestant.subject.start().await?;
        let _subject = contestant.subject;
        curves.push(Curve { name: contestant.name, running, points: Vec::new(), ended: None, _subject });
    }
    settle().await;
    for level in LEVELS.into_iter().take(scale.of(LEVELS.len(), 2)) {
        for curve in curves.iter_mut().filter(|curve| curve.ended.is_none()) {
            match one_level(&curve.running, level, scale).await {
                Ok(driven) => {
                    if driven.first_token_ms.median() > PATIENCE_MS {
                        curve.ended = Some("half of the messages then waited for over 5 s".to_owned());
                    }
                    curve.points.push((level, driven));
                }
                Err(error) => curve.ended = Some(format!("failed with {level}: {error:#}")),
            }
        }
    }
    let plots = vec![latency(&curves), turns(&curves)];
    let text = table(&curves, &failures);
    Ok(Measured { rows: Vec::new(), section: Some(Section { name: "load", text }), plots })
}

async fn one_level(running: &Running, level: usize, scale: Scale) -> anyhow::Result<Driven> {
    let agent = running.create_agent().await?;
    let talks = try_join_all((0..level).map(|_| running.begin(&agent))).await?;
    settle().await;
    let window = if scale.quick { Duration::ZERO } else { WINDOW };
    Ok(drive(talks, window).await?.1)
}

fn latency(curves: &[Curve]) -> PlotFile {
    let line = |(colour, curve): (usize, &Curve), percent| Line {
        name: format!("{} p{percent}", curve.name),
        colour,
        is_dashed: percent == 99,
        points: curve
            .points
            .iter()
            .map(|(level, driven)| (*level as f64, driven.first_token_ms.percentile(percent)))
            .collect(),
    };
    let lines = curves.iter().enumerate().flat_map(|curve| [line(curve, 50), line(curve, 99)]).collect();
    let plot = Plot {
        title: "From sending a message to the first token",
        x_label: "conversations at once",
        y_label: "milliseconds",
        lines,
    };
    PlotFile { name: "latency", plot }
}

fn turns(curves: &[Curve]) -> PlotFile {
    let line = |(colour, curve): (usize, &Curve)| Line {
        name: curve.name.clone(),
        colour,
        is_dashed: false,
        points: curve.points.iter().map(|(level, driven)| (*level as f64, driven.turns_per_s)).collect(),
    };
    let plot = Plot {
        title: "Turns completed each second",
        x_label: "conversations at once",
        y_label: "turns/s",
        lines: curves.iter().enumerate().map(line).collect(),
    };
    PlotFile { name: "turns", plot }
}

fn table(curves: &[Curve], failures: &[String]) -> String {
    let mut text = "| conversations at once |".to_owned();
    text.extend(curves.iter().map(|curve| format!(" {} |", curve.name)));
    text.push_str("\n|---|");
    text.extend(curves.iter().map(|_| "---|"));
    text.push('\n');
    for level in LEVELS {
        let cells: Vec<String> = curves.iter().map(|curve| cell(curve, level)).collect();
        text.push_str(&format!("| {level} | {} |\n", cells.join(" | ")));
    }
    text.push_str(
        "\nFirst token p50 / p99, and turns a second. One run; all servers are up, one is driven.\n",
    );
    let ended = curves.iter().filter_map(|curve| Some((&curve.name, curve.ended.as_ref()?)));
    text.extend(ended.map(|(name, why)| format!("\n{name}, where it stops: {why}.\n")));
    text.extend(failures.iter().map(|failure| format!("\n{failure}\n")));
    text
}

fn cell(curve: &Curve, level: usize) -> String {
    let Some((_, driven)) = curve.points.iter().find(|(at, _)| *at == level) else { return "–".to_owned() };
    let [p50, p99] = [50, 99].map(|percent| three_digits(driven.first_token_ms.percentile(percent)));
    format!("{p50} / {p99} ms, {}/s", three_digits(driven.turns_per_s))
}
