//! Measures how the time to first token and the turns per second depend on the number of concurrent conversations, for
//! Herm and other agent servers.
//!
//! All servers run during the whole measurement, but only one server at a time receives requests.

use std::time::Duration;

use futures_util::future::try_join_all;

use super::Mode;
use super::peers::participants;
use crate::plot::{Line, Plot};
use crate::report::{Measured, PlotFile, Section};
use crate::setup::wait_for_background_work;
use crate::stats::three_digits;
use crate::subject::Running;
use crate::turns::{TurnStats, measure_turns};

/// The numbers of concurrent conversations at which each server is measured.
const LEVELS: [usize; 6] = [1, 5, 20, 50, 100, 200];
const WINDOW: Duration = Duration::from_secs(5);
/// The maximum median time to first token, in milliseconds. A server that exceeds it is not measured with more
/// conversations.
const MAX_FIRST_TOKEN_MS: f64 = 5_000.0;

/// The measurements of one server, at each number of concurrent conversations.
struct Curve {
    name: String,
    running: Running,
    /// One pair for each number of concurrent conversations: that number, and the measurements.
    points: Vec<(usize, TurnStats)>,
    /// The reason why this server is not measured with more conversations, or `None` while there is no such reason.
    stop_reason: Option<String>,
    /// Owns the server's directory and model, so it must be dropped after `running`. Rust drops fields in the order of
    /// their declaration.
    _subject: crate::subject::Subject,
}

pub(super) async fn measure(mode: Mode) -> anyhow::Result<Measured> {
    let (participants, failures) = participants(mode).await?;
    let mut curves = Vec::new();
    for participant in participants {
        let (running, _) = participant.subject.start().await?;
        let _subject = participant.subject;
        curves.push(Curve {
            name: participant.name,
            running,
            points: Vec::new(),
            stop_reason: None,
            _subject,
        });
    }
    wait_for_background_work().await;
    for level in LEVELS.into_iter().take(mode.count(LEVELS.len(), 2)) {
        for curve in curves.iter_mut().filter(|curve| curve.stop_reason.is_none()) {
            match measure_level(&curve.running, level, mode).await {
                Ok(stats) => {
                    if stats.first_token_ms.median() > MAX_FIRST_TOKEN_MS {
                        curve.stop_reason = Some("half of the messages waited for over 5 s".to_owned());
                    }
                    curve.points.push((level, stats));
                }
                Err(error) => {
                    curve.stop_reason = Some(format!("it failed with {level} conversations: {error:#}"));
                }
            }
        }
    }
    let plots = vec![latency_plot(&curves), turns_plot(&curves)];
    let text = table(&curves, &failures);
    Ok(Measured { rows: Vec::new(), section: Some(Section { name: "load", text }), plots })
}

async fn measure_level(running: &Running, level: usize, mode: Mode) -> anyhow::Result<TurnStats> {
    let agent = running.create_agent().await?;
    let chats = try_join_all((0..level).map(|_| running.begin_chat(&agent))).await?;
    wait_for_background_work().await;
    let window = if mode.quick { Duration::ZERO } else { WINDOW };
    Ok(measure_turns(chats, window).await?.1)
}

fn latency_plot(curves: &[Curve]) -> PlotFile {
    let line = |(colour, curve): (usize, &Curve), percent| Line {
        name: format!("{} p{percent}", curve.name),
        colour,
        is_dashed: percent == 99,
        points: curve
            .points
            .iter()
            .map(|(level, stats)| (*level as f64, stats.first_token_ms.percentile(percent)))
            .collect(),
    };
    let lines = curves.iter().enumerate().flat_map(|curve| [line(curve, 50), line(curve, 99)]).collect();
    let plot = Plot {
        title: "Time from sending a message to the first token",
        x_label: "concurrent conversations",
        y_label: "milliseconds",
        lines,
    };
    PlotFile { name: "latency", plot }
}

fn turns_plot(curves: &[Curve]) -> PlotFile {
    let line = |(colour, curve): (usize, &Curve)| Line {
        name: curve.name.clone(),
        colour,
        is_dashed: false,
        points: curve.points.iter().map(|(level, stats)| (*level as f64, stats.turns_per_s)).collect(),
    };
    let plot = Plot {
        title: "Turns per second",
        x_label: "concurrent conversations",
        y_label: "turns/s",
        lines: curves.iter().enumerate().map(line).collect(),
    };
    PlotFile { name: "turns", plot }
}

fn table(curves: &[Curve], failures: &[String]) -> String {
    let mut text = "| concurrent conversations |".to_owned();
    text.extend(curves.iter().map(|curve| format!(" {} |", curve.name)));
    text.push_str("\n|---|");
    text.extend(curves.iter().map(|_| "---|"));
    text.push('\n');
    for level in LEVELS {
        let cells: Vec<String> = curves.iter().map(|curve| cell(curve, level)).collect();
        text.push_str(&format!("| {level} | {} |\n", cells.join(" | ")));
    }
    text.push_str(
        "\nFirst token p50 / p99, and turns per second. One run. All servers are running, and one at a time is under \
         load.\n",
    );
    let stopped = curves.iter().filter_map(|curve| Some((&curve.name, curve.stop_reason.as_ref()?)));
    text.extend(stopped.map(|(name, reason)| format!("\n{name} was not measured further: {reason}.\n")));
    text.extend(failures.iter().map(|failure| format!("\n{failure}\n")));
    text
}

fn cell(curve: &Curve, level: usize) -> String {
    let Some((_, stats)) = curve.points.iter().find(|(measured, _)| *measured == level) else {
        return "–".to_owned();
    };
    let [p50, p99] = [50, 99].map(|percent| three_digits(stats.first_token_ms.percentile(percent)));
    format!("{p50} / {p99} ms, {}/s", three_digits(stats.turns_per_s))
}
