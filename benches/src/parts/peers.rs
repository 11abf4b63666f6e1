//! Herm beside other servers for agents, in one run: round after round, each of them alone on the machine in turn.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;

use super::{Scale, ms};
use crate::bed::settle;
use crate::drive::drive;
use crate::machine::tree_resident_bytes;
use crate::report::{Measured, Section, spread};
use crate::stats::{Samples, three_digits};
use crate::subject::{Installed, Peer, Running, Subject};

const ROUNDS: usize = 3;
/// Conversations at once, where it is not one.
const CROWD: usize = 20;
/// Turns that are taken before anything counts: interpreters compile, pools fill.
const WARM_UP_TURNS: usize = 20;
const WINDOW: Duration = Duration::from_secs(8);
const CREATED: usize = 50;
const MB: f64 = 1e6;
/// What is said last before a process is killed.
const LAST_WORDS: &str = "remember-the-heron";

/// Who takes part.
pub(super) struct Contestant {
    pub(super) name: String,
    pub(super) subject: Subject,
    makes_agents: bool,
}

/// One row of the table: its name, its unit, and whether more is better.
struct Row(&'static str, &'static str, bool);

const ROWS: [Row; 9] = [
    Row("start to ready", "ms", false),
    Row("create an agent, p50", "ms", false),
    Row("create a thread, p50", "ms", false),
    Row("sent → first token, p50", "ms", false),
    Row("sent → first token, p99", "ms", false),
    Row("turns, 1 thread", "/s", true),
    Row("turns, 20 threads", "/s", true),
    Row("resident, idle", "MB", false),
    Row("resident, after", "MB", false),
];

/// What one round gives of one contestant, in the order of the rows; `None` where there is no such thing.
type Round = [Option<f64>; ROWS.len()];

/// All rounds of one contestant.
struct Column {
    name: String,
    rounds: Vec<Round>,
    /// In how many rounds the last turn was there after `kill -9`.
    survived: usize,
    failure: Option<String>,
}

pub(super) async fn measure(scale: Scale) -> anyhow::Result<Measured> {
    let mut columns: Vec<Column> = Vec::new();
    let mut failures = Vec::new();
    for _ in 0..scale.of(ROUNDS, 1) {
        let (contestants, missing) = contestants(scale).await?;
        failures = missing;
        for contestant in contestants {
            let measured = one_round(&contestant, scale).await;
            let at = column_of(&mut columns, &contestant.name);
            let Some(column) = columns.get_mut(at) else { continue };
            match measured {
                Ok((round, survived)) => {
                    column.rounds.push(round);
                    column.survived += usize::from(survived);
                }
                Err(error) if contestant.name == "Herm" => return Err(error),
                Err(error) => column.failure = Some(format!("{error:#}")),
            }
        }
    }
    let text = text(&columns, &failures);
    Ok(Measured { rows: Vec::new(), section: Some(Section { name: "peers", text }), plots: Vec::new() })
}

/// Herm and every peer that is there, or can be installed, each with a fresh state; and what kept the others away.
pub(super) async fn contestants(scale: Scale) -> anyhow::Result<(Vec<Contestant>, Vec<String>)> {
    let herm = Contestant { name: "Herm".to_owned(), subject: Subject::herm().await?, makes_agents: true };
    let (mut all, mut failures) = (vec![herm], Vec::new());
    // Without them, a look whether everything works needs no network.
    let peers = if scale.quick { [].as_slice() } else { Peer::ALL.as_slice() };
    for peer in peers {
        match Installed::get(*peer).await {
            Ok(installed) => all.push(Contestant {
                name: peer.name().to_owned(),
                subject: Subject::peer(&installed).await?,
                makes_agents: peer.makes_agents(),
            }),
            Err(error) => {
                failures.push(format!("{} {} is missing: {error:#}.", peer.name(), peer.version()));
            }
        }
    }
    Ok((all, failures))
}

/// Where the column of this name is; it is added if there is none yet.
fn column_of(columns: &mut Vec<Column>, name: &str) -> usize {
    columns.iter().position(|column| column.name == name).unwrap_or_else(|| {
        columns.push(Column { name: name.to_owned(), rounds: Vec::new(), survived: 0, failure: None });
        columns.len() - 1
    })
}

async fn one_round(contestant: &Contestant, scale: Scale) -> anyhow::Result<(Round, bool)> {
    let (running, started) = contestant.subject.start().await?;
    settle().await;
    let idle = tree_resident_bytes(running.pid()?)?;
    let agent = running.create_agent().await?;
    let mut talk = running.begin(&agent).await?;
    for _ in 0..scale.of(WARM_UP_TURNS, 1) {
        talk.turn("hello").await?;
    }
    let agents = if contestant.makes_agents { Some(create_agents(&running, scale).await?) } else { None };
    let threads = create_threads(&running, &agent, scale).await?;
    let window = if scale.quick { Duration::ZERO } else { WINDOW };
    let (mut talks, alone) = drive(vec![talk], window).await?;
    let crowd = try_join_all((0..scale.of(CROWD, 2)).map(|_| running.begin(&agent))).await?;
    let (_crowd, crowded) = drive(crowd, window).await?;
    let after = tree_resident_bytes(running.pid()?)?;
    let mut survived = false;
    if let Some(mut talk) = talks.pop() {
        talk.turn(LAST_WORDS).await?;
        let (agent, thread) = (talk.agent.clone(), talk.thread.clone());
        drop(talk);
        running.kill().await?;
        let (running, _) = contestant.subject.start().await?;
        survived = running.remembers(&agent, &thread, LAST_WORDS).await?;
        running.kill().await?;
    }
    let round = [
        Some(ms(started)),
        agents,
        Some(threads),
        Some(alone.first_token_ms.median()),
        Some(alone.first_token_ms.percentile(99)),
        Some(alone.turns_per_s),
        Some(crowded.turns_per_s),
        Some(idle / MB),
        Some(after / MB),
    ];
    Ok((round, survived))
}

async fn create_agents(running: &Running, scale: Scale) -> anyhow::Result<f64> {
    let mut taken = Vec::new();
    for _ in 0..scale.of(CREATED, 2) {
        let begun = Instant::now();
        running.create_agent().await?;
        taken.push(ms(begun.elapsed()));
    }
    Ok(Samples::new(taken)?.median())
}

async fn create_threads(running: &Running, agent: &str, scale: Scale) -> anyhow::Result<f64> {
    let mut taken = Vec::new();
    for _ in 0..scale.of(CREATED, 2) {
        let begun = Instant::now();
        running.create_thread(agent).await?;
        taken.push(ms(begun.elapsed()));
    }
    Ok(Samples::new(taken)?.median())
}

fn text(columns: &[Column], failures: &[String]) -> String {
    let mut text = "| what |".to_owned();
    text.extend(columns.iter().map(|column| format!(" {} |", column.name)));
    text.push_str("\n|---|");
    text.extend(columns.iter().map(|_| "---|"));
    text.push('\n');
    for (number, row) in ROWS.iter().enumerate() {
        let values: Vec<_> = columns.iter().map(|column| column.values(number)).collect();
        let herm = values.first().and_then(Option::as_ref).map(Samples::median);
        let cells: Vec<_> = values
            .iter()
            .enumerate()
            .map(|(at, values)| cell(values.as_ref(), row, herm.filter(|_| at > 0)))
            .collect();
        text.push_str(&format!("| {} | {} |\n", row.0, cells.join(" | ")));
    }
    let survival: Vec<_> =
        columns.iter().map(|column| format!("{} of {}", column.survived, column.rounds.len())).collect();
    text.push_str(&format!(
        "| the last turn is still there after `kill -9` | {} |\n\n",
        survival.join(" | ")
    ));
    text.push_str(
        "Median (min–max) of the rounds; behind `×`, how many times as long, as few turns or as much memory as \
         Herm: above 1 is in Herm's favour. Memory is that of the process and all its children.\n\n",
    );
    text.push_str(
        "- **Herm**: `herm serve` as it is by default: SQLite with `synchronous=FULL`, an agent with its sandbox \
         and all its tools. An agent is a deployment; its stream stays open.\n",
    );
    text.extend(Peer::ALL.map(|peer| format!("- **{}**: {}\n", peer.name(), peer.about())));
    text.extend(failures.iter().map(|failure| format!("\n{failure}\n")));
    let failed = columns.iter().filter_map(|column| Some((&column.name, column.failure.as_ref()?)));
    text.extend(failed.map(|(name, why)| format!("\n{name} failed in a round: {why}.\n")));
    text
}

impl Column {
    fn values(&self, row: usize) -> Option<Samples> {
        let values = self.rounds.iter().filter_map(|round| round.get(row).copied().flatten()).collect();
        Samples::new(values).ok()
    }
}

fn cell(values: Option<&Samples>, row: &Row, herm: Option<f64>) -> String {
    let Some(values) = values else { return "–".to_owned() };
    let median = values.median();
    let ratio =
        herm.map(|herm| format!(", ×{}", three_digits(if row.2 { herm / median } else { median / herm })));
    format!("{} {}{}", spread(values), row.1, ratio.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_above_one_is_in_herms_favour() {
        let values = Samples::new(vec![20.0]).unwrap();
        assert_eq!(cell(Some(&values), &Row("a", "ms", false), Some(10.0)), "20.0 ms, ×2.00");
        assert_eq!(cell(Some(&values), &Row("a", "/s", true), Some(40.0)), "20.0 /s, ×2.00");
        assert_eq!(cell(Some(&values), &Row("a", "ms", false), None), "20.0 ms");
        assert_eq!(cell(None, &Row("a", "ms", false), Some(1.0)), "–");
    }

    #[test]
    fn what_is_missing_is_named() {
        let column = Column {
            name: "Herm".to_owned(),
            rounds: vec![[Some(1.0); ROWS.len()]],
            survived: 1,
            failure: None,
        };
        let text = text(&[column], &["Mastra server 1 is missing: no network.".to_owned()]);
        assert!(text.contains("| start to ready | 1.00 ms |\n"), "{text}");
        assert!(text.contains("after `kill -9` | 1 of 1 |"), "{text}");
        assert!(text.contains("\nMastra server 1 is missing: no network.\n"), "{text}");
    }
}
