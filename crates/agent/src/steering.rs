//! Steering requests, with which a run asks a person to approve a tool call or to answer a question: their
//! effects on tool calls, and the interpretation of user messages as answers.

use herm_types::deployment::OnExpiry;
use herm_types::model::ToolOutcome;
use herm_types::run::RunError;
use herm_types::steering::{
    SteeringAnswer, SteeringDecision, SteeringKind, SteeringOutcome, SteeringRequest,
};

/// The effect of a steering request on its tool call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The steering request has no outcome yet, so the tool call waits.
    Pending,
    /// The tool call is made. `arguments` replaces its arguments if a person has edited them. `note` is a
    /// text for the model that is added to the result.
    Execute { arguments: Option<String>, note: Option<String> },
    /// The tool call is not made, and this is its result.
    Skip(ToolOutcome),
    /// The run fails with this error.
    Fail(RunError),
}

/// Returns the effect of a steering request on its tool call. `on_expiry` is the deployment's setting for
/// expired requests.
pub fn settle(request: &SteeringRequest, on_expiry: OnExpiry) -> Settlement {
    match (request.outcome, &request.answer) {
        (None, _) => Settlement::Pending,
        (Some(SteeringOutcome::Expired), _) => settle_expired(request.kind, on_expiry),
        (Some(_), Some(answer)) => settle_answered(request.kind, answer),
        // A request that has an outcome, but has neither expired nor been answered, was cancelled because its
        // run ended.
        (Some(_), None) => skip("Cancelled: the run was stopped before a person answered.", true),
    }
}

fn skip(text: impl Into<String>, is_error: bool) -> Settlement {
    Settlement::Skip(ToolOutcome { text: text.into(), is_error })
}

fn settle_answered(kind: SteeringKind, answer: &SteeringAnswer) -> Settlement {
    let message = answer.message.as_deref();
    match (answer.decision, kind) {
        (SteeringDecision::Answer, _) | (SteeringDecision::Approve, SteeringKind::Question) => {
            skip(message.unwrap_or_default(), false)
        }
        (SteeringDecision::Approve, SteeringKind::Approval) => {
            let arguments = answer.arguments.as_ref().map(ToString::to_string);
            let changed = arguments.as_ref().map(|arguments| {
                format!(
                    "[A person approved this call with different arguments. It was made with: {arguments}]"
                )
            });
            let comment =
                message.map(|message| format!("[The person who approved this call says: {message}]"));
            let note: Vec<String> = changed.into_iter().chain(comment).collect();
            Settlement::Execute { arguments, note: (!note.is_empty()).then(|| note.join("\n")) }
        }
        (SteeringDecision::Deny, SteeringKind::Question) => {
            let reason = message.map(|message| format!(" They wrote: {message}")).unwrap_or_default();
            skip(format!("The person declined to answer.{reason}"), true)
        }
        (SteeringDecision::Deny, SteeringKind::Approval) => {
            let reason = message.map(|message| format!(" The reason: {message}")).unwrap_or_default();
            skip(
                format!(
                    "A person denied this call, so it was not made.{reason} Do not try to do the same in another way."
                ),
                true,
            )
        }
    }
}

fn settle_expired(kind: SteeringKind, on_expiry: OnExpiry) -> Settlement {
    match (on_expiry, kind) {
        (OnExpiry::Fail, _) => Settlement::Fail(RunError {
            code: "steering_expired".to_owned(),
            message: "The run waited for a person, but nobody answered in time.".to_owned(),
        }),
        (OnExpiry::Approve, SteeringKind::Approval) => Settlement::Execute {
            arguments: None,
            note: Some("[Nobody answered in time. The call was made because the deployment approves requests on expiry.]".to_owned()),
        },
        (OnExpiry::Deny, SteeringKind::Approval) => {
            skip("Nobody approved this call in time, so it was not made. Continue without it.", true)
        }
        (OnExpiry::Approve | OnExpiry::Deny, SteeringKind::Question) => {
            skip("Nobody answered in time. Continue without an answer as well as you can.", true)
        }
    }
}

/// The messages that approve a tool call. Case and punctuation are ignored in the comparison.
const APPROVALS: [&str; 6] = ["yes", "ok", "approve", "approved", "go ahead", "yes go ahead"];

/// Interprets a user message as the answer to a steering request. For an approval request, a message that is
/// one of `APPROVALS` approves the tool call, and any other message denies it.
pub fn parse_answer(kind: SteeringKind, text: &str) -> SteeringAnswer {
    let (decision, message) = match kind {
        SteeringKind::Question => (SteeringDecision::Answer, Some(text.to_owned())),
        SteeringKind::Approval if is_approval(text) => (SteeringDecision::Approve, None),
        SteeringKind::Approval => (SteeringDecision::Deny, Some(text.to_owned())),
    };
    SteeringAnswer { decision, message, arguments: None, remember: Default::default() }
}

fn is_approval(text: &str) -> bool {
    let plain: String = text
        .chars()
        .flat_map(char::to_lowercase)
        .map(|c| if c.is_ascii_punctuation() || matches!(c, '…' | '’' | '“' | '”') { ' ' } else { c })
        .collect();
    let words: Vec<&str> = plain.split_whitespace().collect();
    APPROVALS.contains(&words.join(" ").as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_approves_only_if_it_says_nothing_else() {
        for text in
            ["yes", "Yes!", " OK. ", "approve", "Approved", "go ahead", "Yes, go ahead.", "YES GO AHEAD"]
        {
            let answer = parse_answer(SteeringKind::Approval, text);
            assert_eq!((answer.decision, answer.message), (SteeringDecision::Approve, None), "{text}");
        }
        for text in ["yes but not now", "no", "", "okay then", "yesterday", "don't approve", "y e s"] {
            let answer = parse_answer(SteeringKind::Approval, text);
            assert_eq!((answer.decision, answer.message.as_deref()), (SteeringDecision::Deny, Some(text)));
        }
        let answer = parse_answer(SteeringKind::Question, "yes");
        assert_eq!((answer.decision, answer.message.as_deref()), (SteeringDecision::Answer, Some("yes")));
    }
}
