//! Decides the next step of a run from the run's state.

use herm_types::model::{ModelReply, StopReason, ToolCall, Turn};
use herm_types::run::RunError;

use crate::run_state::{RunState, Step, turns};
use crate::steering::Settlement;
use crate::tools::{MAX_CALLS_PER_TURN, Toolset, Verdict};

/// The maximum number of model calls during one run. A run that needs more fails with the code `step_limit`.
pub const MAX_STEPS: usize = 100;
/// The number of consecutive empty replies after which a run fails with the code `empty_reply`. An empty
/// reply contains no text and no tool calls.
pub const MAX_EMPTY_REPLIES: usize = 3;

/// The text of the user turn that is added to the conversation after an empty reply.
const EMPTY_REPLY_REMINDER: &str = "(Your last reply was empty. Answer the user, or call a tool.)";

/// The next step of a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Call the model with these turns. Its reply is recorded as step `step_no`.
    CallModel { step_no: i64, turns: Vec<Turn> },
    /// Process these tool calls of step `step_no` in parallel: execute each call, refuse it, or ask a
    /// person first, according to its verdict.
    RunTools { step_no: i64, calls: Vec<OpenCall> },
    /// Wait until a person answers a steering request. The run has nothing else to do in the meantime.
    Wait,
    /// End the run as completed.
    Finish,
    /// End the run as failed, with this error.
    Fail(RunError),
}

/// A tool call without a result, and the verdict on it.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenCall {
    /// The number of the call within its step. The first call is 1.
    pub call_no: i64,
    /// The call. If a person has edited its arguments, it contains the edited ones.
    pub call: ToolCall,
    /// True if an earlier attempt has recorded the call's intent, the journal entry that is written before a
    /// call is made. The attempt may then have executed the call.
    pub was_begun: bool,
    pub verdict: Verdict,
}

/// Returns the next step of a run. The decision depends only on `state`.
pub fn decide(state: &RunState) -> Decision {
    let Some(last) = state.steps.last() else { return call_model(state, 1) };
    let Some(reply) = &last.reply else { return call_model(state, last.step_no) };
    let open = open_calls(last, reply);
    if !open.is_empty() {
        return run_tools_or_wait(&state.tools, last, open);
    }
    let continues = !last.outcomes.is_empty() || !state.pending.is_empty() || is_empty(reply);
    if !continues {
        return final_decision(reply);
    }
    if state.steps.len() >= MAX_STEPS {
        return fail("step_limit", format!("The run reached the maximum of {MAX_STEPS} model calls."));
    }
    if empty_replies(&state.steps) >= MAX_EMPTY_REPLIES && state.pending.is_empty() {
        return fail(
            "empty_reply",
            format!("The model returned {MAX_EMPTY_REPLIES} empty replies in a row."),
        );
    }
    call_model(state, last.step_no + 1)
}

fn run_tools_or_wait(tools: &Toolset, step: &Step, open: Vec<(i64, &ToolCall)>) -> Decision {
    let mut calls = Vec::new();
    for (call_no, call) in open {
        let (mut call, was_begun) = (call.clone(), step.begun.contains(&call_no));
        let verdict = match step.settlements.get(&call_no) {
            Some(Settlement::Fail(error)) => return Decision::Fail(error.clone()),
            Some(Settlement::Pending) => continue,
            Some(Settlement::Skip(outcome)) => Verdict::Answer(outcome.clone()),
            Some(Settlement::Execute { arguments, note }) => {
                call.arguments = arguments.clone().unwrap_or(call.arguments);
                Toolset::judge_approved(&call, was_begun, note.as_deref())
            }
            None if call_no > MAX_CALLS_PER_TURN => Verdict::refuse(format!(
                "This call was not made: a turn may make at most {MAX_CALLS_PER_TURN} calls. Make it again in the \
                 next turn."
            )),
            None if was_begun => tools.judge_begun(&call),
            None => tools.judge(&call),
        };
        calls.push(OpenCall { call_no, call, was_begun, verdict });
    }
    if calls.is_empty() { Decision::Wait } else { Decision::RunTools { step_no: step.step_no, calls } }
}

fn open_calls<'a>(step: &Step, reply: &'a ModelReply) -> Vec<(i64, &'a ToolCall)> {
    let has_outcome = |call_no: i64| {
        let index = usize::try_from(call_no - 1).unwrap_or(usize::MAX);
        step.outcomes.get(index).is_some_and(Option::is_some)
    };
    (1..).zip(reply.tool_calls()).filter(|(call_no, _)| !has_outcome(*call_no)).collect()
}

/// Returns the number of consecutive empty replies at the end of `steps`.
pub fn empty_replies<'s>(steps: impl IntoIterator<Item = &'s Step, IntoIter: DoubleEndedIterator>) -> usize {
    steps.into_iter().rev().take_while(|step| step.reply.as_ref().is_some_and(is_empty)).count()
}

fn is_empty(reply: &ModelReply) -> bool {
    reply.stop != StopReason::Refusal && reply.tool_calls().next().is_none() && reply.text().trim().is_empty()
}

/// Returns true if a run ends as completed with this reply, provided that no further user message has
/// arrived.
pub fn is_final_reply(reply: &ModelReply) -> bool {
    reply.tool_calls().next().is_none() && !is_empty(reply) && final_decision(reply) == Decision::Finish
}

fn final_decision(reply: &ModelReply) -> Decision {
    if reply.stop == StopReason::Refusal && reply.text().trim().is_empty() {
        return fail("content_refused", "The model refused to answer.".to_owned());
    }
    Decision::Finish
}

fn fail(code: &str, message: String) -> Decision {
    Decision::Fail(RunError { code: code.to_owned(), message })
}

fn call_model(state: &RunState, step_no: i64) -> Decision {
    let mut conversation = state.earlier.clone();
    conversation.extend(turns(&state.steps));
    conversation.extend(state.pending.iter().map(|text| Turn::User { text: text.clone() }));
    let last_was_empty = state
        .steps
        .iter()
        .rev()
        .find_map(|step| step.reply.as_ref())
        .is_some_and(|reply| is_empty(reply) && state.pending.is_empty());
    if last_was_empty {
        conversation.push(Turn::User { text: EMPTY_REPLY_REMINDER.to_owned() });
    }
    Decision::CallModel { step_no, turns: conversation }
}

#[cfg(test)]
mod tests {
    use herm_types::model::{Block, TokenUsage};
    use proptest::prelude::*;

    use super::*;
    use crate::tools::{CallMode, Shell, ToolRequest};
    use herm_types::model::ToolOutcome;

    fn reply(text: &str, calls: usize) -> ModelReply {
        let text = (!text.is_empty()).then(|| Block::Text { text: text.to_owned() });
        let calls = (0..calls).map(|number| {
            Block::ToolCall(ToolCall {
                tool_call_id: format!("call_{number}"),
                tool: "shell".to_owned(),
                arguments: r#"{"command": "ls"}"#.to_owned(),
            })
        });
        let blocks = text.into_iter().chain(calls).collect();
        ModelReply { blocks, stop: StopReason::EndTurn, usage: TokenUsage::default() }
    }

    fn step(step_no: i64, reply: Option<ModelReply>, done: usize) -> Step {
        let calls = reply.as_ref().map_or(0, |reply| reply.tool_calls().count());
        let outcome = ToolOutcome { text: "ok".to_owned(), is_error: false };
        let outcomes = (0..calls).map(|number| (number < done).then(|| outcome.clone())).collect();
        Step { step_no, messages: vec![format!("message {step_no}")], reply, outcomes, ..Step::default() }
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
        assert_eq!(calls.iter().map(|open| open.call_no).collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn a_pending_call_does_not_block_other_calls() {
        let mut asking = step(1, Some(reply("", 2)), 0);
        asking.settlements.insert(1, Settlement::Pending);
        let Decision::RunTools { calls, .. } = decide(&state(vec![asking.clone()])) else { panic!() };
        assert_eq!(calls.iter().map(|open| open.call_no).collect::<Vec<_>>(), [2]);
        asking.outcomes[1] = Some(ToolOutcome { text: "ok".to_owned(), is_error: false });
        assert_eq!(decide(&state(vec![asking.clone()])), Decision::Wait);
        asking.settlements.insert(1, Settlement::Execute { arguments: None, note: None });
        let Decision::RunTools { calls, .. } = decide(&state(vec![asking.clone()])) else { panic!() };
        assert!(matches!(calls[0].verdict, Verdict::Execute(_)));
        let error = RunError { code: "steering_expired".to_owned(), message: "late".to_owned() };
        asking.settlements.insert(1, Settlement::Fail(error.clone()));
        assert_eq!(decide(&state(vec![asking])), Decision::Fail(error));
    }

    #[test]
    fn a_command_begun_before_a_crash_is_recovered() {
        let mut begun = step(1, Some(reply("", 2)), 0);
        begun.begun.insert(1);
        // The run's toolset is empty, so the second call is refused. The first call is not checked
        // again, because it was begun before the crash.
        let Decision::RunTools { calls, .. } = decide(&state(vec![begun])) else { panic!() };
        assert!(calls[0].was_begun && !calls[1].was_begun);
        let Verdict::Execute(cleared) = calls[0].verdict.clone() else { panic!() };
        assert_eq!(cleared.into_parts().1, CallMode::Recover);
        assert!(matches!(&calls[1].verdict, Verdict::Answer(outcome) if outcome.is_error));
    }

    #[test]
    fn an_approved_call_is_executed_with_the_arguments_that_the_person_edited() {
        let mut approved = step(1, Some(reply("", 1)), 0);
        let edited = r#"{"command": "ls -l"}"#.to_owned();
        let note = Some("edited".to_owned());
        approved
            .settlements
            .insert(1, Settlement::Execute { arguments: Some(edited.clone()), note: note.clone() });
        let Decision::RunTools { calls, .. } = decide(&state(vec![approved])) else { panic!() };
        assert_eq!(calls[0].call.arguments, edited);
        let Verdict::Execute(cleared) = calls[0].verdict.clone() else { panic!() };
        let shell = Shell { command: "ls -l".to_owned(), timeout_s: None };
        assert_eq!(cleared.into_parts(), (ToolRequest::Shell(shell), CallMode::Execute, note));
    }

    #[test]
    fn calls_beyond_the_limit_of_a_turn_are_answered_with_an_error() {
        let many = usize::try_from(MAX_CALLS_PER_TURN).unwrap() + 1;
        let Decision::RunTools { calls, .. } = decide(&state(vec![step(1, Some(reply("", many)), many - 1)]))
        else {
            panic!()
        };
        assert!(
            matches!(&calls[0].verdict, Verdict::Answer(outcome) if outcome.text.contains("at most 32 calls"))
        );
    }

    #[test]
    fn a_reply_without_tool_calls_ends_the_run_unless_a_message_is_pending() {
        let mut state = state(vec![step(1, Some(reply("done", 0)), 0)]);
        assert_eq!(decide(&state), Decision::Finish);
        state.pending.push("one more thing".to_owned());
        assert!(matches!(decide(&state), Decision::CallModel { step_no: 2, .. }));
    }

    #[test]
    fn an_interrupted_model_call_is_repeated_as_the_same_step() {
        let state = state(vec![step(1, Some(reply("", 1)), 1), step(2, None, 0)]);
        assert!(matches!(decide(&state), Decision::CallModel { step_no: 2, .. }));
    }

    #[test]
    fn empty_replies_add_a_reminder_and_then_fail_the_run() {
        let empty = |number| step(number, Some(reply(" ", 0)), 0);
        let Decision::CallModel { turns, .. } = decide(&state(vec![empty(1)])) else { panic!() };
        assert_eq!(turns.last(), Some(&Turn::User { text: EMPTY_REPLY_REMINDER.to_owned() }));
        let Decision::Fail(error) = decide(&state(vec![empty(1), empty(2), empty(3)])) else { panic!() };
        assert_eq!(error.code, "empty_reply");
    }

    #[test]
    fn a_run_fails_at_the_step_limit() {
        let steps = (1..=MAX_STEPS as i64).map(|number| step(number, Some(reply("", 1)), 1)).collect();
        let Decision::Fail(error) = decide(&state(steps)) else { panic!() };
        assert_eq!(error.code, "step_limit");
    }

    proptest! {
        /// In the conversation sent to the model, every tool call has a result. Tool calls with a result are
        /// not run again.
        #[test]
        fn no_tool_call_is_orphaned_or_repeated(calls in 0usize..5, done in 0usize..5, more: bool) {
            let mut steps = vec![step(1, Some(reply("text", calls)), done)];
            if more && done >= calls {
                steps.push(step(2, None, 0));
            }
            let state = state(steps);
            let counts = turns(&state.steps).iter().fold((0, 0), |(called, answered), turn| match turn {
                Turn::Assistant { blocks } => {
                    (called + blocks.iter().filter(|b| matches!(b, Block::ToolCall(_))).count(), answered)
                }
                Turn::ToolResults { results } => (called, answered + results.len()),
                Turn::User { .. } => (called, answered),
            });
            prop_assert_eq!(counts.0, counts.1);
            if let Decision::RunTools { calls: open, .. } = decide(&state) {
                prop_assert_eq!(open.len(), calls - done);
            }
        }
    }
}
