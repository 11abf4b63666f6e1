//! What a life came to, in one line.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::aftermath::lost_and_doubled;
use super::flat::{self, FDS, RSS_KIB};
use super::place::Place;
use super::troubles::{Length, Troubles};
use super::usage::Usage;
use crate::history::{History, check};

/// Lives that are shorter are compared with each other, and so are the others: a server grows warm with its age.
const YOUNG: Duration = Duration::from_secs(3);

pub(super) struct Summary {
    history: History,
    seconds: u64,
    visitors: usize,
    steered: u64,
    asked_again: u64,
    lives: Vec<Usage>,
    calm: Vec<Usage>,
    /// Memory and descriptors are judged, and not only told: where time was what the soak says.
    is_judged: bool,
}

impl Summary {
    pub(super) fn new(
        place: &Place,
        history: History,
        troubles: &Troubles<'_>,
        length: Length,
        visitors: usize,
    ) -> Self {
        Self {
            history,
            seconds: troubles.seconds(),
            visitors,
            steered: place.steered.load(Ordering::SeqCst),
            asked_again: place.asked_again.load(Ordering::SeqCst),
            lives: troubles.lives.clone(),
            calm: troubles.calm.clone(),
            is_judged: matches!(length, Length::Seconds(_)),
        }
    }

    fn runs(&self, status: &str) -> usize {
        let runs = self.history.deployments.iter().flat_map(|of_it| &of_it.runs);
        runs.filter(|run| run["status"] == status).count()
    }

    fn events(&self, is_it: impl Fn(&Value) -> bool) -> usize {
        self.history.deployments.iter().flat_map(|of_it| &of_it.events).filter(|event| is_it(event)).count()
    }

    pub(super) fn line(&self, database: &str, seed: u64) -> String {
        let made = |what| self.history.troubles.get(what).copied().unwrap_or_default();
        let acknowledged: usize = self.history.deployments.iter().map(|of_it| of_it.acknowledged.len()).sum();
        let (lost, doubled) = lost_and_doubled(&self.history);
        let series = |looks: &[Usage]| {
            let of = |value: fn(&Usage) -> u64| flat::medians(&looks.iter().map(value).collect::<Vec<_>>());
            json!({"looks": looks.len(), "rss_kib": of(|look| look.rss_kib), "fds": of(|look| look.fds)})
        };
        let (young, old) = self.by_age();
        json!({
            "database": database, "seed": seed, "seconds": self.seconds,
            "kills": made("kills"), "stops": made("stops"), "guests_killed": made("guests killed"),
            "visitors": self.visitors, "messages_acknowledged": acknowledged, "asked_again": self.asked_again,
            "questions_answered": self.steered,
            "runs": {
                "completed": self.runs("completed"), "cancelled": self.runs("cancelled"), "failed": self.runs("error"),
            },
            "tool_calls": self.events(|event| event["event"] == "tool_call"),
            "unknown_outcomes": self.events(check::is_untold),
            "events": self.events(|_| true),
            "lives_under_3_s": series(&young), "lives_over_3_s": series(&old), "calm": series(&self.calm),
            "lost": lost, "doubled": doubled,
        })
        .to_string()
    }

    fn by_age(&self) -> (Vec<Usage>, Vec<Usage>) {
        self.lives.iter().partition(|life| life.age < YOUNG)
    }

    /// What is wrong, if anything is.
    pub(super) fn check(&self) -> Result<(), String> {
        check::check(&self.history)?;
        if !self.is_judged {
            return Ok(());
        }
        let (young, old) = self.by_age();
        for (of, looks) in [("short lives", &young), ("long lives", &old), ("one life", &self.calm)] {
            let rss: Vec<u64> = looks.iter().map(|look| look.rss_kib).collect();
            let fds: Vec<u64> = looks.iter().map(|look| look.fds).collect();
            flat::check(&format!("the memory of {of}, in KiB,"), &rss, RSS_KIB)?;
            flat::check(&format!("the number of file descriptors of {of}"), &fds, FDS)?;
        }
        Ok(())
    }
}
