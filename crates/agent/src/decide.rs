//! The next step of a run, as a function of what is known of it.

use herm_types::model::{ModelReply, StopReason, ToolCall, Turn};
use herm_types::run::RunError;

use crate::run_state::{RunState, Step, turns};
use crate::steering::Settlement;

/// Model calls that one run may make.
pub const MAX_STEPS: usize = 100;
/// Replies in a row without text and without tool calls before the run fails.
pub const MAX_EMPTY_REPLIES: usize = 3;

/// Said to a model whose last reply was empty.
const EMPTY_REPLY_NUDGE: &str = "(Your last reply was empty. Answer the user, or call a tool.)";

/// What a run does next.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Call the model with these turns; the answer is step `step_no`.
    CallModel { step_no: i64, turns: Vec<Turn> },
    /// Run these tool calls of step `step_no`, side by side. Each comes with its number, from 1.
    RunTools { step_no: i64, calls: Vec<(i64, ToolCall)> },
    /// Nothing can be done before a person answers.
    Wait,
    /// The run is done.
    Finish,
    /// The run cannot go on.
    Fail(RunError),
}

/// Decides what a run does next. The same state gives the same decision, however often it is asked.
pub fn decide(state: &RunState) -> Decision {
    let Some(last) = state.steps.last() else { return call_model(state, 1) };
    let Some(reply) = &last.reply else { return call_model(state, last.step_no) };
    let open = open_calls(last, reply);
    if !open.is_empty() {
        return make_or_wait(last, open);
    }
    let goes_on = !last.outcomes.is_empty() || !state.pending.is_empty() || is_empty(reply);
    if !goes_on {
        return end_of(reply);
    }
    if state.steps.len() >= MAX_STEPS {
        return fail(
            "step_limit",
            format!("The run made {MAX_STEPS} model calls, the most one run may make."),
        );
    }
    if empty_replies(&state.steps) >= MAX_EMPTY_REPLIES && state.pending.is_empty() {
        return fail("empty_reply", format!("The model gave {MAX_EMPTY_REPLIES} empty replies in a row."));
    }
    call_model(state, last.step_no + 1)
}

fn make_or_wait(step: &Step, open: Vec<(i64, ToolCall)>) -> Decision {
    let failed = step.asked.values().find_map(|settlement| match settlement {
        Settlement::Fail(error) => Some(error.clone()),
        _ => None,
    });
    if let Some(error) = failed {
        return Decision::Fail(error);
    }
    let waits = |call_no: &i64| step.asked.get(call_no) == Some(&Settlement::Pending);
    let calls: Vec<_> = open.into_iter().filter(|(call_no, _)| !waits(call_no)).collect();
    if calls.is_empty() { Decision::Wait } else { Decision::RunTools { step_no: step.step_no, calls } }
}

fn open_calls(step: &Step, reply: &ModelReply) -> Vec<(i64, ToolCall)> {
    (1..)
        .zip(reply.tool_calls())
        .filter(|(call_no, _)| {
            let index = usize::try_from(*call_no - 1).unwrap_or(usize::MAX);
            step.outcomes.get(index).is_none_or(Option::is_none)
        })
        .map(|(call_no, call)| (call_no, call.clone()))
        .collect()
}

/// How many replies, the last ones in a row, were empty.
pub fn empty_replies(steps: &[Step]) -> usize {
    steps.iter().rev().take_while(|step| step.reply.as_ref().is_some_and(is_empty)).count()
}

fn is_empty(reply: &ModelReply) -> bool {
    reply.stop != StopReason::Refusal && reply.tool_calls().next().is_none() && reply.text().trim().is_empty()
}

fn end_of(reply: &ModelReply) -> Decision {
    if reply.stop == StopReason::Refusal && reply.text().trim().is_empty() {
        return fail("content_refused", "The model refused to answer.".to_owned());
    }
    Decision::Finish
}

fn fail(code: &str, message: String) -> Decision {
    Decision::Fail(RunError { code: code.to_owned(), message })
}

fn call_model(state: &RunState, step_no: i64) -> Decision {
    let mut said = state.earlier.clone();
    said.extend(turns(&state.steps));
    said.extend(state.pending.iter().map(|text| Turn::User { text: text.clone() }));
    let last_was_empty = state
        .steps
        .iter()
        .rev()
        .find_map(|step| step.reply.as_ref())
        .is_some_and(|reply| is_empty(reply) && state.pending.is_empty());
    if last_was_empty {
        said.push(Turn::User { text: EMPTY_REPLY_NUDGE.to_owned() });
    }
    Decision::CallModel { step_no, turns: said }
}

#[cfg(test)]
mod tests {
    use herm_types::model::{Block, TokenUsage};
    use proptest::prelude::*;

    use super::*;
    use herm_types::model::ToolOutcome;

    fn reply(text: &str, calls: usize) -> ModelReply {
        let text = (!text.is_empty()).then(|| Block::Text { text: text.to_owned() });
        let calls = (0..calls).map(|number| {
            Block::ToolCall(ToolCall {
                tool_call_id: format!("call_{number}"),
                tool: "shell".to_owned(),
                arguments: "{}".to_owned(),
            })
        });
        let blocks = text.into_iter().chain(calls).collect();
        ModelReply { blocks, stop: StopReason::EndTurn, usage: TokenUsage::default() }
    }

    fn step(step_no: i64, reply: Option<ModelReply>, done: usize) -> Step {
        let calls = reply.as_ref().map_or(0, |reply| reply.tool_calls().count());
        let outcome = ToolOutcome { text: "ok".to_owned(), is_error: false };
        let outcomes = (0..calls).map(|number| (number < done).then(|| outcome.clone())).collect();
        Step { step_no, heard: vec![format!("message {step_no}")], reply, outcomes, ..Step::default() }
    }

    fn state(steps: Vec<Step>) -> RunState {
        RunState { steps, ..RunState::default() }
    }

    #[test]
    fn a_new_run_calls_the_model_with_its_pending_messages() {
        let state = RunState { pending: vec!["hello".to_owned()], ..RunState::default() };
        let turns = vec![Turn::User { text: "hello".to_owned() }];
        assert_eq!(decide(&state), Decision::CallModel { step_no: 1, turns });
    }

    #[test]
    fn only_tool_calls_without_a_result_are_run() {
        let state = state(vec![step(1, Some(reply("", 3)), 1)]);
        let Decision::RunTools { step_no: 1, calls } = decide(&state) else { panic!() };
        assert_eq!(calls.iter().map(|(call_no, _)| *call_no).collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn calls_that_wait_for_a_person_hold_up_no_other_and_then_the_run_waits() {
        let mut asking = step(1, Some(reply("", 2)), 0);
        asking.asked.insert(1, Settlement::Pending);
        let Decision::RunTools { calls, .. } = decide(&state(vec![asking.clone()])) else { panic!() };
        assert_eq!(calls.iter().map(|(call_no, _)| *call_no).collect::<Vec<_>>(), [2]);
        asking.outcomes[1] = Some(ToolOutcome { text: "ok".to_owned(), is_error: false });
        assert_eq!(decide(&state(vec![asking.clone()])), Decision::Wait);
        asking.asked.insert(1, Settlement::Make { arguments: None, note: None });
        assert!(matches!(decide(&state(vec![asking.clone()])), Decision::RunTools { .. }));
        let error = RunError { code: "steering_expired".to_owned(), message: "late".to_owned() };
        asking.asked.insert(1, Settlement::Fail(error.clone()));
        assert_eq!(decide(&state(vec![asking])), Decision::Fail(error));
    }

    #[test]
    fn a_reply_without_tool_calls_ends_the_run_unless_a_message_waits() {
        let mut state = state(vec![step(1, Some(reply("done", 0)), 0)]);
        assert_eq!(decide(&state), Decision::Finish);
        state.pending.push("one more thing".to_owned());
        assert!(matches!(decide(&state), Decision::CallModel { step_no: 2, .. }));
    }

    #[test]
    fn an_interrupted_model_call_is_made_again_as_the_same_step() {
        let state = state(vec![step(1, Some(reply("", 1)), 1), step(2, None, 0)]);
        assert!(matches!(decide(&state), Decision::CallModel { step_no: 2, .. }));
    }

    #[test]
    fn empty_replies_are_asked_about_and_then_end_the_run() {
        let empty = |number| step(number, Some(reply(" ", 0)), 0);
        let Decision::CallModel { turns, .. } = decide(&state(vec![empty(1)])) else { panic!() };
        assert_eq!(turns.last(), Some(&Turn::User { text: EMPTY_REPLY_NUDGE.to_owned() }));
        let Decision::Fail(error) = decide(&state(vec![empty(1), empty(2), empty(3)])) else { panic!() };
        assert_eq!(error.code, "empty_reply");
    }

    #[test]
    fn a_run_that_never_ends_is_ended() {
        let steps = (1..=MAX_STEPS as i64).map(|number| step(number, Some(reply("", 1)), 1)).collect();
        let Decision::Fail(error) = decide(&state(steps)) else { panic!() };
        assert_eq!(error.code, "step_limit");
    }

    proptest! {
        /// Whatever was done, in whichever order the tools finished: every call in the turns has its result,
        /// and what was done is not asked for again.
        #[test]
        fn no_tool_call_is_orphaned_or_repeated(calls in 0usize..5, done in 0usize..5, more: bool) {
            let mut steps = vec![step(1, Some(reply("text", calls)), done)];
            if more && done >= calls {
                steps.push(step(2, None, 0));
            }
            let state = state(steps);
            let asked = turns(&state.steps).iter().fold((0, 0), |(asked, answered), turn| match turn {
                Turn::Assistant { blocks } => {
                    (asked + blocks.iter().filter(|b| matches!(b, Block::ToolCall(_))).count(), answered)
                }
                Turn::ToolResults { results } => (asked, answered + results.len()),
                Turn::User { .. } => (asked, answered),
            });
            prop_assert_eq!(asked.0, asked.1);
            if let Decision::RunTools { calls: open, .. } = decide(&state) {
                prop_assert_eq!(open.len(), calls - done);
            }
        }
    }
}
