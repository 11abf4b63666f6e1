//! Decides how to proceed after a failed model call: retry the same model, call the deployment's next fallback model,
//! or fail the run.

use herm_agent::MAX_EMPTY_REPLIES;
use herm_types::deployment::Deployment;
use herm_types::model::{ModelError, ModelErrorKind};
use herm_types::run::RunError;

/// The maximum number of attempts with one model if no fallback model is left. After the last attempt, the run fails.
const MAX_ATTEMPTS: u32 = 5;
/// The maximum number of attempts with one model if a fallback model is left. This allows one retry, because a single
/// error is no reason to switch models.
const MAX_ATTEMPTS_WITH_FALLBACK: u32 = 2;
/// The delay before the second attempt with a model, in milliseconds. It doubles with each further attempt.
const FIRST_RETRY_MS: i64 = 500;
/// The maximum retry delay that a provider can request, in milliseconds. Longer delays are shortened to this maximum.
const MAX_RETRY_MS: i64 = 60_000;
/// The maximum retry delay that a provider can request if a fallback model is left, in milliseconds. If the provider
/// requests a longer delay, the fallback model is called instead, because it replies sooner.
const MAX_RETRY_WITH_FALLBACK_MS: i64 = 5_000;

/// The action to take after a failed model call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextAction {
    /// Retry the same model. The delay before the retry is the sum of `retry_after_ms`, which the provider requested,
    /// and `backoff_ms`, which the caller varies randomly.
    Retry { retry_after_ms: i64, backoff_ms: i64 },
    /// Call the next fallback model at once.
    NextModel,
    /// Fail the run.
    Fail,
}

/// Returns the action to take after a model call has failed with `model_error`. `failures` counts the failed attempts
/// with this model, including this one. `has_next_model` is true if a fallback model is left.
pub(super) fn next_action(model_error: &ModelError, failures: u32, has_next_model: bool) -> NextAction {
    let retry_after_ms =
        model_error.retry_after.map_or(0, |wait| i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
    let should_retry = match (model_error.kind.is_transient(), has_next_model) {
        (false, _) => false,
        (true, false) => failures < MAX_ATTEMPTS,
        // The stream stalled, so this attempt has already taken a long time. To avoid another such wait, the fallback
        // model is called instead of a retry.
        (true, true) if model_error.kind == ModelErrorKind::Stalled => false,
        (true, true) => failures < MAX_ATTEMPTS_WITH_FALLBACK && retry_after_ms <= MAX_RETRY_WITH_FALLBACK_MS,
    };
    if should_retry {
        let doublings = failures.saturating_sub(1).min(MAX_ATTEMPTS);
        return NextAction::Retry {
            retry_after_ms: retry_after_ms.min(MAX_RETRY_MS),
            backoff_ms: FIRST_RETRY_MS << doublings,
        };
    }
    if has_next_model && model_error.kind.allows_fallback() {
        NextAction::NextModel
    } else {
        NextAction::Fail
    }
}

/// Returns the deployment's main model and then its fallback models, in the order in which they are called.
fn models(deployment: &Deployment) -> impl Iterator<Item = &str> {
    std::iter::once(&deployment.model).chain(&deployment.settings.fallback_models).map(String::as_str)
}

/// Returns the model at `index` in the order of [`models`], or the main model if the index is out of range.
pub(super) fn model_at(deployment: &Deployment, index: usize) -> &str {
    models(deployment).nth(index).unwrap_or(&deployment.model)
}

/// Returns the index of the first model after `index` for which `can_call` returns true, or `None` if there is no
/// such model.
pub(super) fn next_callable(
    deployment: &Deployment,
    index: usize,
    can_call: impl Fn(&str) -> bool,
) -> Option<usize> {
    models(deployment).enumerate().skip(index + 1).find(|(_, model)| can_call(model)).map(|(index, _)| index)
}

/// Returns the index of the model that a new step calls. Normally this is `last`, the model of the run's previous step:
/// it is known to work, and models of other providers cannot use its thinking blocks. If one more empty reply would
/// fail the run, the model after `last`, if there is one, is called instead.
pub(super) fn initial_index(deployment: &Deployment, last: Option<&str>, empty_replies: usize) -> usize {
    let used = last.and_then(|last| models(deployment).position(|model| model == last)).unwrap_or_default();
    let is_last_empty_reply = empty_replies + 1 >= MAX_EMPTY_REPLIES;
    (used + usize::from(is_last_empty_reply)).min(deployment.settings.fallback_models.len())
}

/// Returns the error with which a run fails after a failed call of the model at `index`.
pub(super) fn run_error(deployment: &Deployment, index: usize, model_error: ModelError) -> RunError {
    let message = match index {
        0 => model_error.message,
        _ => format!(
            "{} (The fallback model {} was called because {} had failed.)",
            model_error.message,
            model_at(deployment, index),
            deployment.model
        ),
    };
    RunError { code: model_error.kind.code().to_owned(), message }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn model_error(kind: ModelErrorKind, retry_after_s: Option<u64>) -> ModelError {
        ModelError { kind, message: "no".to_owned(), retry_after: retry_after_s.map(Duration::from_secs) }
    }

    const TRANSIENT: [ModelErrorKind; 6] = [
        ModelErrorKind::RateLimited,
        ModelErrorKind::Overloaded,
        ModelErrorKind::Provider,
        ModelErrorKind::Network,
        ModelErrorKind::Stalled,
        ModelErrorKind::Malformed,
    ];
    const PERMANENT: [ModelErrorKind; 4] = [
        ModelErrorKind::ProviderNotConfigured,
        ModelErrorKind::Authentication,
        ModelErrorKind::ContextOverflow,
        ModelErrorKind::InvalidRequest,
    ];

    #[test]
    fn transient_errors_are_retried_four_times_with_exponential_backoff() {
        for kind in TRANSIENT {
            let waits: Vec<NextAction> =
                (1..=5).map(|failures| next_action(&model_error(kind, None), failures, false)).collect();
            let retry = |backoff_ms| NextAction::Retry { retry_after_ms: 0, backoff_ms };
            assert_eq!(waits, [retry(500), retry(1000), retry(2000), retry(4000), NextAction::Fail]);
        }
    }

    #[test]
    fn the_retry_delay_requested_by_a_provider_is_respected_up_to_a_limit() {
        for (retry_after_s, retry_after_ms) in [(2, 2000), (60, 60_000), (3600, 60_000), (u64::MAX, 60_000)] {
            let next = next_action(&model_error(ModelErrorKind::RateLimited, Some(retry_after_s)), 1, false);
            assert_eq!(next, NextAction::Retry { retry_after_ms, backoff_ms: 500 });
        }
    }

    #[test]
    fn the_fallback_is_called_after_two_failures_or_at_once_if_the_retry_delay_is_long() {
        for kind in TRANSIENT.into_iter().filter(|kind| *kind != ModelErrorKind::Stalled) {
            assert!(matches!(next_action(&model_error(kind, None), 1, true), NextAction::Retry { .. }));
            assert!(matches!(
                next_action(&model_error(kind, Some(5)), 1, true),
                NextAction::Retry { retry_after_ms: 5000, .. }
            ));
            assert_eq!(next_action(&model_error(kind, Some(6)), 1, true), NextAction::NextModel);
            assert_eq!(next_action(&model_error(kind, None), 2, true), NextAction::NextModel);
        }
        assert_eq!(next_action(&model_error(ModelErrorKind::Stalled, None), 1, true), NextAction::NextModel);
    }

    #[test]
    fn permanent_errors_go_to_the_fallback_at_once_but_refused_content_fails_the_run() {
        for kind in PERMANENT {
            assert_eq!(next_action(&model_error(kind, None), 1, true), NextAction::NextModel);
            assert_eq!(next_action(&model_error(kind, None), 1, false), NextAction::Fail);
        }
        assert_eq!(
            next_action(&model_error(ModelErrorKind::ContentRefused, None), 1, true),
            NextAction::Fail
        );
    }
}
