//! Compares Herm with other agent servers. In each round, the servers are measured one after the other, and only the
//! measured server is running.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;

use super::{Mode, ms};
use crate::machine::tree_resident_bytes;
use crate::report::{Measured, Section, median_and_range};
use crate::setup::wait_for_background_work;
use crate::stats::{Samples, three_digits};
use crate::subject::{Installation, Peer, Running, Subject};
use crate::turns::measure_turns;

const ROUNDS: usize = 3;
/// The number of concurrent conversations for the metric "turns, 20 threads".
const CONCURRENT_CHATS: usize = 20;
/// The number of turns before the measurement begins. During these turns, just-in-time compilers compile code and
/// connection pools fill up.
const WARM_UP_TURNS: usize = 20;
const WINDOW: Duration = Duration::from_secs(8);
/// The number of agents, and also of threads, that are created on each server in each round to measure how long one
/// creation takes.
const CREATIONS: usize = 50;
const MB: f64 = 1e6;
/// The message of the last turn before the server is killed. After a restart, the benchmark searches the
/// thread's history for this text.
const LAST_MESSAGE: &str = "remember-the-heron";

/// A server that takes part in the comparison.
pub(super) struct Participant {
    pub(super) name: String,
    pub(super) subject: Subject,
    can_create_agents: bool,
}

/// A row of the table: the label, the unit, and true if higher values are better.
struct Metric(&'static str, &'static str, bool);

const METRICS: [Metric; 9] = [
    Metric("start to ready", "ms", false),
    Metric("create an agent, p50", "ms", false),
    Metric("create a thread, p50", "ms", false),
    Metric("sent → first token, p50", "ms", false),
    Metric("sent → first token, p99", "ms", false),
    Metric("turns, 1 thread", "/s", true),
    Metric("turns, 20 threads", "/s", true),
    Metric("resident, idle", "MB", false),
    Metric("resident, after", "MB", false),
];

/// The values of one server in one round, in the order of [`METRICS`]. `None` if the server does not support the
/// metric.
type Round = [Option<f64>; METRICS.len()];

/// The values of one server in all rounds.
struct ServerResults {
    name: String,
    rounds: Vec<Round>,
    /// The number of rounds in which the server still had the last turn after `kill -9` and a restart.
    survived: usize,
    failure: Option<String>,
}

pub(super) async fn measure(mode: Mode) -> anyhow::Result<Measured> {
    let mut all: Vec<ServerResults> = Vec::new();
    let mut failures = Vec::new();
    for _ in 0..mode.count(ROUNDS, 1) {
        let (participants, missing) = participants(mode).await?;
        failures = missing;
        for participant in participants {
            let measured = measure_round(&participant, mode).await;
            let index = index_of_results(&mut all, &participant.name);
            let Some(results) = all.get_mut(index) else { continue };
            match measured {
                Ok((round, survived)) => {
                    results.rounds.push(round);
                    results.survived += usize::from(survived);
                }
                Err(error) if participant.name == "Herm" => return Err(error),
                Err(error) => results.failure = Some(format!("{error:#}")),
            }
        }
    }
    let text = section_text(&all, &failures);
    Ok(Measured { rows: Vec::new(), section: Some(Section { name: "peers", text }), plots: Vec::new() })
}

/// Returns Herm and all peers that could be installed, each without any data. For each peer that could not be
/// installed, also returns a sentence that states the reason.
pub(super) async fn participants(mode: Mode) -> anyhow::Result<(Vec<Participant>, Vec<String>)> {
    let herm =
        Participant { name: "Herm".to_owned(), subject: Subject::herm().await?, can_create_agents: true };
    let (mut all, mut failures) = (vec![herm], Vec::new());
    // The quick mode omits the peers, because it must work without a network and installing them needs one.
    let peers = if mode.quick { [].as_slice() } else { Peer::ALL.as_slice() };
    for peer in peers {
        match Installation::get(*peer).await {
            Ok(installed) => all.push(Participant {
                name: peer.name().to_owned(),
                subject: Subject::peer(&installed).await?,
                can_create_agents: peer.can_create_agents(),
            }),
            Err(error) => {
                failures.push(format!(
                    "{} {} could not be installed: {error:#}.",
                    peer.name(),
                    peer.version()
                ));
            }
        }
    }
    Ok((all, failures))
}

/// Returns the index of the results of the server `name` in `all`. Appends empty results if there are none yet.
fn index_of_results(all: &mut Vec<ServerResults>, name: &str) -> usize {
    all.iter().position(|results| results.name == name).unwrap_or_else(|| {
        all.push(ServerResults { name: name.to_owned(), rounds: Vec::new(), survived: 0, failure: None });
        all.len() - 1
    })
}

async fn measure_round(participant: &Participant, mode: Mode) -> anyhow::Result<(Round, bool)> {
    let (running, started) = participant.subject.start().await?;
    wait_for_background_work().await;
    let idle = tree_resident_bytes(running.pid()?)?;
    let agent = running.create_agent().await?;
    let mut chat = running.begin_chat(&agent).await?;
    for _ in 0..mode.count(WARM_UP_TURNS, 1) {
        chat.turn("hello").await?;
    }
    let agents =
        if participant.can_create_agents { Some(create_agents(&running, mode).await?) } else { None };
    let threads = create_threads(&running, &agent, mode).await?;
    let window = if mode.quick { Duration::ZERO } else { WINDOW };
    let (mut chats, single) = measure_turns(vec![chat], window).await?;
    let concurrent =
        try_join_all((0..mode.count(CONCURRENT_CHATS, 2)).map(|_| running.begin_chat(&agent))).await?;
    let (_open_chats, concurrent) = measure_turns(concurrent, window).await?;
    let after = tree_resident_bytes(running.pid()?)?;
    let mut survived = false;
    if let Some(mut chat) = chats.pop() {
        chat.turn(LAST_MESSAGE).await?;
        let (agent, thread) = (chat.agent.clone(), chat.thread.clone());
        drop(chat);
        running.kill().await?;
        let (running, _) = participant.subject.start().await?;
        survived = running.remembers(&agent, &thread, LAST_MESSAGE).await?;
        running.kill().await?;
    }
    let round = [
        Some(ms(started)),
        agents,
        Some(threads),
        Some(single.first_token_ms.median()),
        Some(single.first_token_ms.percentile(99)),
        Some(single.turns_per_s),
        Some(concurrent.turns_per_s),
        Some(idle / MB),
        Some(after / MB),
    ];
    Ok((round, survived))
}

async fn create_agents(running: &Running, mode: Mode) -> anyhow::Result<f64> {
    let mut durations = Vec::new();
    for _ in 0..mode.count(CREATIONS, 2) {
        let started = Instant::now();
        running.create_agent().await?;
        durations.push(ms(started.elapsed()));
    }
    Ok(Samples::new(durations)?.median())
}

async fn create_threads(running: &Running, agent: &str, mode: Mode) -> anyhow::Result<f64> {
    let mut durations = Vec::new();
    for _ in 0..mode.count(CREATIONS, 2) {
        let started = Instant::now();
        running.create_thread(agent).await?;
        durations.push(ms(started.elapsed()));
    }
    Ok(Samples::new(durations)?.median())
}

fn section_text(all: &[ServerResults], failures: &[String]) -> String {
    let mut text = "| what |".to_owned();
    text.extend(all.iter().map(|results| format!(" {} |", results.name)));
    text.push_str("\n|---|");
    text.extend(all.iter().map(|_| "---|"));
    text.push('\n');
    for (number, metric) in METRICS.iter().enumerate() {
        let values: Vec<_> = all.iter().map(|results| results.values(number)).collect();
        let herm = values.first().and_then(Option::as_ref).map(Samples::median);
        let cells: Vec<_> = values
            .iter()
            .enumerate()
            .map(|(column, values)| cell(values.as_ref(), metric, herm.filter(|_| column > 0)))
            .collect();
        text.push_str(&format!("| {} | {} |\n", metric.0, cells.join(" | ")));
    }
    let survival: Vec<_> =
        all.iter().map(|results| format!("{} of {}", results.survived, results.rounds.len())).collect();
    text.push_str(&format!(
        "| the last turn is still there after `kill -9` | {} |\n\n",
        survival.join(" | ")
    ));
    text.push_str(
        "Median (min–max) of the rounds. `×` is the ratio to Herm: a value above 1 means that Herm is faster or uses \
         less memory. Memory includes all child processes.\n\n",
    );
    text.push_str(
        "- **Herm**: `herm serve` with default settings: SQLite with `synchronous=FULL`, an agent with a sandbox and \
         all tools. An agent is a deployment. Its stream stays open.\n",
    );
    text.extend(Peer::ALL.map(|peer| format!("- **{}**: {}\n", peer.name(), peer.setup_text())));
    text.extend(failures.iter().map(|failure| format!("\n{failure}\n")));
    let failed = all.iter().filter_map(|results| Some((&results.name, results.failure.as_ref()?)));
    text.extend(failed.map(|(name, error)| format!("\n{name} failed in a round: {error}.\n")));
    text
}

impl ServerResults {
    /// Returns the values of one metric in all rounds, or `None` if the server does not support the metric.
    fn values(&self, metric: usize) -> Option<Samples> {
        let values = self.rounds.iter().filter_map(|round| round.get(metric).copied().flatten()).collect();
        Samples::new(values).ok()
    }
}

fn cell(values: Option<&Samples>, metric: &Metric, herm: Option<f64>) -> String {
    let Some(values) = values else { return "–".to_owned() };
    let median = values.median();
    let ratio =
        herm.map(|herm| format!(", ×{}", three_digits(if metric.2 { herm / median } else { median / herm })));
    format!("{} {}{}", median_and_range(values), metric.1, ratio.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_above_one_favours_herm() {
        let values = Samples::new(vec![20.0]).unwrap();
        assert_eq!(cell(Some(&values), &Metric("a", "ms", false), Some(10.0)), "20.0 ms, ×2.00");
        assert_eq!(cell(Some(&values), &Metric("a", "/s", true), Some(40.0)), "20.0 /s, ×2.00");
        assert_eq!(cell(Some(&values), &Metric("a", "ms", false), None), "20.0 ms");
        assert_eq!(cell(None, &Metric("a", "ms", false), Some(1.0)), "–");
    }

    #[test]
    fn a_peer_that_could_not_be_installed_is_named() {
        let results = ServerResults {
            name: "Herm".to_owned(),
            rounds: vec![[Some(1.0); METRICS.len()]],
            survived: 1,
            failure: None,
        };
        let text =
            section_text(&[results], &["Mastra server 1 could not be installed: no network.".to_owned()]);
        assert!(text.contains("| start to ready | 1.00 ms |\n"), "{text}");
        assert!(text.contains("after `kill -9` | 1 of 1 |"), "{text}");
        assert!(text.contains("\nMastra server 1 could not be installed: no network.\n"), "{text}");
    }
}
