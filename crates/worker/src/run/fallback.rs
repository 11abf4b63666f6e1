//! What follows a model call that failed: the same model again, the next of the agent's models, or the run's end.

use herm_agent::MAX_EMPTY_REPLIES;
use herm_types::deployment::Deployment;
use herm_types::model::{ModelFault, ModelFaultKind};
use herm_types::run::RunError;

/// Times that a model is called before the run fails, where no other one is left.
const MAX_ATTEMPTS: u32 = 5;
/// Times that a model is called where another one is left: once more, as a single hitch is no reason to leave it.
const ATTEMPTS_BEFORE_NEXT: u32 = 2;
/// Before the second attempt, in milliseconds; doubled for each further one.
const FIRST_RETRY_MS: i64 = 500;
/// The longest wait that a provider may ask for, in milliseconds.
const MAX_RETRY_MS: i64 = 60_000;
/// The longest wait that a provider may ask for where another model is left, in milliseconds: somebody waits for the
/// answer.
const PATIENCE_MS: i64 = 5_000;

/// What follows a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The same model again, after what its provider asked for and a backoff, which is to be jittered.
    Again { asked_ms: i64, backoff_ms: i64 },
    /// The next model, at once.
    Other,
    /// The run's end.
    Fail,
}

/// What follows when a model has failed so many times, this one included; `has_other`: another one is left.
pub(super) fn after(fault: &ModelFault, failures: u32, has_other: bool) -> Next {
    let asked = fault.retry_after.map_or(0, |wait| i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
    let is_worth_it = match (fault.kind.is_transient(), has_other) {
        (false, _) => false,
        (true, false) => failures < MAX_ATTEMPTS,
        // It has been silent for long already.
        (true, true) if fault.kind == ModelFaultKind::Stalled => false,
        (true, true) => failures < ATTEMPTS_BEFORE_NEXT && asked <= PATIENCE_MS,
    };
    if is_worth_it {
        let doublings = failures.saturating_sub(1).min(MAX_ATTEMPTS);
        return Next::Again { asked_ms: asked.min(MAX_RETRY_MS), backoff_ms: FIRST_RETRY_MS << doublings };
    }
    if has_other && fault.kind.may_pass_elsewhere() { Next::Other } else { Next::Fail }
}

/// The agent's models in the order in which they are tried.
fn models(deployment: &Deployment) -> impl Iterator<Item = &str> {
    std::iter::once(&deployment.model).chain(&deployment.settings.fallback_models).map(String::as_str)
}

/// The model of this place; the first one where there is none.
pub(super) fn model(deployment: &Deployment, place: usize) -> &str {
    models(deployment).nth(place).unwrap_or(&deployment.model)
}

/// The place of the next model behind `place` that can be called at all.
pub(super) fn next(deployment: &Deployment, place: usize, can_call: impl Fn(&str) -> bool) -> Option<usize> {
    models(deployment).enumerate().skip(place + 1).find(|(_, model)| can_call(model)).map(|(place, _)| place)
}

/// The place of the model that a new step begins with: that of the run's step before, as it works, and what it thought
/// is of use to nobody else; but the next one where it would be the last time that an empty reply is asked about.
pub(super) fn at_start(deployment: &Deployment, last: Option<&str>, empty_replies: usize) -> usize {
    let used = last.and_then(|last| models(deployment).position(|model| model == last)).unwrap_or_default();
    let gives_nothing = empty_replies + 1 >= MAX_EMPTY_REPLIES;
    (used + usize::from(gives_nothing)).min(deployment.settings.fallback_models.len())
}

/// Why the run ends, where the model of this place was the last one asked.
pub(super) fn error(deployment: &Deployment, place: usize, fault: ModelFault) -> RunError {
    let message = match place {
        0 => fault.message,
        _ => format!(
            "{} ({} was asked because {} had failed.)",
            fault.message,
            model(deployment, place),
            deployment.model
        ),
    };
    RunError { code: fault.kind.code().to_owned(), message }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn fault(kind: ModelFaultKind, retry_after_s: Option<u64>) -> ModelFault {
        ModelFault { kind, message: "no".to_owned(), retry_after: retry_after_s.map(Duration::from_secs) }
    }

    const TRANSIENT: [ModelFaultKind; 6] = [
        ModelFaultKind::RateLimited,
        ModelFaultKind::Overloaded,
        ModelFaultKind::Provider,
        ModelFaultKind::Network,
        ModelFaultKind::Stalled,
        ModelFaultKind::Malformed,
    ];
    const LASTING: [ModelFaultKind; 4] = [
        ModelFaultKind::ProviderNotConfigured,
        ModelFaultKind::Authentication,
        ModelFaultKind::ContextOverflow,
        ModelFaultKind::InvalidRequest,
    ];

    #[test]
    fn what_may_pass_is_tried_five_times_with_growing_waits() {
        for kind in TRANSIENT {
            let waits: Vec<Next> =
                (1..=5).map(|failures| after(&fault(kind, None), failures, false)).collect();
            let again = |backoff_ms| Next::Again { asked_ms: 0, backoff_ms };
            assert_eq!(waits, [again(500), again(1000), again(2000), again(4000), Next::Fail]);
        }
    }

    #[test]
    fn a_wait_that_is_asked_for_is_kept_and_bounded() {
        for (asked_s, asked_ms) in [(2, 2000), (60, 60_000), (3600, 60_000), (u64::MAX, 60_000)] {
            let next = after(&fault(ModelFaultKind::RateLimited, Some(asked_s)), 1, false);
            assert_eq!(next, Next::Again { asked_ms, backoff_ms: 500 });
        }
    }

    #[test]
    fn another_model_is_asked_after_the_second_failure_or_at_once_where_waiting_is_long() {
        for kind in TRANSIENT.into_iter().filter(|kind| *kind != ModelFaultKind::Stalled) {
            assert!(matches!(after(&fault(kind, None), 1, true), Next::Again { .. }));
            assert!(matches!(after(&fault(kind, Some(5)), 1, true), Next::Again { asked_ms: 5000, .. }));
            assert_eq!(after(&fault(kind, Some(6)), 1, true), Next::Other);
            assert_eq!(after(&fault(kind, None), 2, true), Next::Other);
        }
        assert_eq!(after(&fault(ModelFaultKind::Stalled, None), 1, true), Next::Other);
    }

    #[test]
    fn what_does_not_pass_goes_to_another_model_at_once_but_a_refusal_stands() {
        for kind in LASTING {
            assert_eq!(after(&fault(kind, None), 1, true), Next::Other);
            assert_eq!(after(&fault(kind, None), 1, false), Next::Fail);
        }
        assert_eq!(after(&fault(ModelFaultKind::ContentRefused, None), 1, true), Next::Fail);
    }
}
