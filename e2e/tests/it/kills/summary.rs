//! The result of a load test: a line of JSON that the test prints, and the final checks.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::failure_injector::{FailureInjector, Length};
use super::final_state::count_lost_and_doubled;
use super::growth::{self, FDS, RSS_KIB};
use super::load_test::LoadTest;
use super::usage::Usage;
use crate::history::{History, checker};

/// A server process that ran for a shorter time has not yet filled its caches and uses less memory than others. Its
/// memory use is therefore compared only with that of other short-lived processes.
const SHORT_PROCESS: Duration = Duration::from_secs(3);

pub(super) struct Summary {
    history: History,
    seconds: u64,
    short_lived_deployments: usize,
    answered_questions: u64,
    retries: u64,
    end_samples: Vec<Usage>,
    calm_samples: Vec<Usage>,
    /// True in a soak (a long run of the test): the test then fails if the server's memory use or number of open file
    /// descriptors grew. A short run only reports the growth.
    checks_growth: bool,
}

impl Summary {
    pub(super) fn new(
        test: &LoadTest,
        history: History,
        injector: &FailureInjector<'_>,
        length: Length,
        short_lived_deployments: usize,
    ) -> Self {
        Self {
            history,
            seconds: injector.seconds(),
            short_lived_deployments,
            answered_questions: test.answered_questions.load(Ordering::SeqCst),
            retries: test.retries.load(Ordering::SeqCst),
            end_samples: injector.end_samples.clone(),
            calm_samples: injector.calm_samples.clone(),
            checks_growth: matches!(length, Length::Seconds(_)),
        }
    }

    fn count_runs(&self, status: &str) -> usize {
        let runs = self.history.deployments.iter().flat_map(|deployment| &deployment.runs);
        runs.filter(|run| run["status"] == status).count()
    }

    fn count_events(&self, predicate: impl Fn(&Value) -> bool) -> usize {
        self.history
            .deployments
            .iter()
            .flat_map(|deployment| &deployment.events)
            .filter(|event| predicate(event))
            .count()
    }

    pub(super) fn line(&self, database: &str, seed: u64) -> String {
        let injected = |kind| self.history.injected_failures.get(kind).copied().unwrap_or_default();
        let acknowledged: usize =
            self.history.deployments.iter().map(|deployment| deployment.acknowledged.len()).sum();
        let (lost, doubled) = count_lost_and_doubled(&self.history);
        let series = |samples: &[Usage]| {
            let of =
                |value: fn(&Usage) -> u64| growth::medians(&samples.iter().map(value).collect::<Vec<_>>());
            json!({"samples": samples.len(), "rss_kib": of(|sample| sample.rss_kib), "fds": of(|sample| sample.fds)})
        };
        let (short, long) = self.by_age();
        json!({
            "database": database, "seed": seed, "seconds": self.seconds,
            "kills": injected("kills"), "stops": injected("stops"), "guests_killed": injected("guests killed"),
            "short_lived_deployments": self.short_lived_deployments, "messages_acknowledged": acknowledged, "retries": self.retries,
            "questions_answered": self.answered_questions,
            "runs": {
                "completed": self.count_runs("completed"), "cancelled": self.count_runs("cancelled"), "failed": self.count_runs("error"),
            },
            "tool_calls": self.count_events(|event| event["event"] == "tool_call"),
            "unknown_outcomes": self.count_events(checker::is_unknown_outcome),
            "events": self.count_events(|_| true),
            "processes_under_3_s": series(&short), "processes_over_3_s": series(&long), "calm": series(&self.calm_samples),
            "lost": lost, "doubled": doubled,
        })
        .to_string()
    }

    fn by_age(&self) -> (Vec<Usage>, Vec<Usage>) {
        self.end_samples.iter().partition(|sample| sample.age < SHORT_PROCESS)
    }

    /// Checks the recorded requests and events and, in a soak, the growth of the server's memory use and number of open
    /// file descriptors.
    pub(super) fn check(&self) -> Result<(), String> {
        checker::check(&self.history)?;
        if !self.checks_growth {
            return Ok(());
        }
        let (short, long) = self.by_age();
        for (name, samples) in [
            ("short server processes", &short),
            ("long server processes", &long),
            ("the last server process", &self.calm_samples),
        ] {
            let rss: Vec<u64> = samples.iter().map(|sample| sample.rss_kib).collect();
            let fds: Vec<u64> = samples.iter().map(|sample| sample.fds).collect();
            growth::check(&format!("the memory of {name}, in KiB,"), &rss, RSS_KIB)?;
            growth::check(&format!("the number of file descriptors of {name}"), &fds, FDS)?;
        }
        Ok(())
    }
}
