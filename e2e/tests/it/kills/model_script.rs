//! The script that determines the replies of the load test's model. A reply depends only on the conversation and the
//! seed, so a repeated model call gets the same reply. In addition, some model calls fail at random.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use herm_testkit::model_server::{Gate, ModelServer, RecordedRequest, Reply};
use serde_json::{Value, json};

use crate::history::markers;
use crate::history::seeded_random::SeededRandom;

/// The file in a workspace to which each command appends its unique token, so that the test can count how often each
/// command was executed.
pub(super) const TOKENS: &str = "tokens.txt";
/// The prefix of a probe's name. A probe is the last message of a thread. It shows which history the model receives.
const PROBE: &str = "probe.";
/// The maximum number of tool calls per user message, not counting the call that asks a question. Each step makes one
/// or two calls.
const MAX_CALLS: u64 = 3;
/// The percentage of model calls that fail.
const FAILURE_PERCENT: u64 = 6;
/// The percentage of messages after which the agent asks a question.
const ASKING_PERCENT: u64 = 12;
/// The percentage of tool calls that write a file. All other calls run a command.
const FILE_WRITE_PERCENT: u64 = 30;
/// The maximum time that a command sleeps after it has appended its token, in hundredths of a second.
const MAX_SLEEP_HUNDREDTHS: u64 = 40;

#[derive(Clone)]
pub(super) struct ModelScript(Arc<ScriptState>);

struct ScriptState {
    seed: u64,
    random: Mutex<SeededRandom>,
    /// Gates that pause streamed replies, by the name of the reply. The first chunk of each reply is its name. The
    /// reply then pauses until a client has read that chunk.
    gates: Mutex<HashMap<String, Gate>>,
    /// The user messages and answers that the model received together with each probe, by the probe's name.
    probe_inputs: Mutex<BTreeMap<String, ModelInput>>,
    /// True while gates are disabled, so that replies do not pause.
    gates_disabled: AtomicBool,
}

/// The names of all user messages and answers that one model request contained.
#[derive(Clone, Default)]
pub(super) struct ModelInput {
    /// The names of all messages that the request contained as user messages.
    pub(super) messages: Vec<String>,
    /// The names of all messages that the request contained as tool results, because they answered a question.
    pub(super) answers: Vec<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the name of the probe that is sent to the thread named `thread`.
pub(super) fn probe_name(thread: &str) -> String {
    format!("{PROBE}{thread}")
}

impl ModelScript {
    pub(super) fn new(seed: u64) -> Self {
        let random = Mutex::new(SeededRandom::new(seed ^ 0x6d6f_6465_6c00));
        Self(Arc::new(ScriptState {
            seed,
            random,
            gates: Mutex::default(),
            probe_inputs: Mutex::default(),
            gates_disabled: AtomicBool::new(false),
        }))
    }

    pub(super) fn play(&self, model: &ModelServer) {
        let model_script = self.clone();
        model.record(false);
        model.respond_with(move |request| model_script.reply(request));
    }

    /// Returns true if the agent asks a question in response to the message `name`.
    fn asks_person(&self, name: &str) -> bool {
        SeededRandom::with_label(self.0.seed, &format!("ask {name}")).percent(ASKING_PERCENT)
    }

    /// Returns a shell command that appends a token to [`TOKENS`] and then sleeps for a while.
    pub(super) fn command(&self, token: &str) -> String {
        let sleep_hundredths = SeededRandom::with_label(self.0.seed, token).below(MAX_SLEEP_HUNDREDTHS);
        format!("echo {token} >> {TOKENS}; sleep 0.{sleep_hundredths:02}")
    }

    /// Returns the user messages and answers that the model received together with this probe.
    pub(super) fn input_at(&self, probe: &str) -> ModelInput {
        lock(&self.0.probe_inputs).get(probe).cloned().unwrap_or_default()
    }

    /// Lets a paused reply continue. `text` is what a client has read of the reply so far. It begins with the name of the
    /// reply, followed by a space. If the client has not read the whole name yet, this does nothing.
    pub(super) fn open_gate_of(&self, text: &str) {
        if let Some((reply_name, _)) = text.split_once(' ') {
            self.gate(reply_name).open();
        }
    }

    /// Disables or enables all gates. Disabling the gates also opens them, so that paused replies continue.
    pub(super) fn set_gates_disabled(&self, gates_disabled: bool) {
        self.0.gates_disabled.store(gates_disabled, Ordering::SeqCst);
        if gates_disabled {
            lock(&self.0.gates).values().for_each(Gate::open);
        }
    }

    fn gate(&self, reply_name: &str) -> Gate {
        let gate = lock(&self.0.gates).entry(reply_name.to_owned()).or_default().clone();
        if self.0.gates_disabled.load(Ordering::SeqCst) {
            gate.open();
        }
        gate
    }

    fn reply(&self, request: &RecordedRequest) -> Reply {
        let messages = markers::user_messages(request.body());
        let name = messages.last().cloned().unwrap_or_default();
        if name.starts_with(PROBE) {
            let answers = markers::answers(request);
            lock(&self.0.probe_inputs).insert(name, ModelInput { messages, answers });
            return Reply::text("All ").then_text("heard.");
        }
        let reply = self.successful_reply(&name, request);
        let mut random = lock(&self.0.random);
        if random.percent(FAILURE_PERCENT) { failed_reply(&mut random, reply) } else { reply }
    }

    fn successful_reply(&self, name: &str, request: &RecordedRequest) -> Reply {
        let mut random = SeededRandom::with_label(self.0.seed, name);
        let calls = self.calls(name, request, &mut random);
        let calls_per_step = usize::try_from(random.between(1, 2)).unwrap_or(1);
        let made_calls = request.tool_results_since_user().len();
        let reply_name = format!("{name}.{made_calls}");
        let reply = Reply::text(format!("{reply_name} ")).gate(&self.gate(&reply_name));
        let reply = reply.text_in(["one ", "two ", "three «é» ", "four."]);
        let next = calls.into_iter().skip(made_calls).take(calls_per_step);
        next.fold(reply, |reply, (tool, arguments)| reply.tool_call(tool, arguments))
    }

    /// Returns all tool calls that the agent makes in response to the message `name`.
    fn calls(
        &self,
        name: &str,
        request: &RecordedRequest,
        random: &mut SeededRandom,
    ) -> Vec<(&'static str, Value)> {
        let has_sandbox = request.tool_names().iter().any(|tool| tool == "shell");
        let question =
            self.asks_person(name).then(|| ("ask_human", json!({"question": format!("{name}: on?")})));
        let count = if has_sandbox { random.below(MAX_CALLS + 1) } else { 0 };
        let work_calls = (0..count).map(|number| {
            let token = format!("{name}.{number}");
            if random.percent(FILE_WRITE_PERCENT) {
                ("write_file", json!({"path": format!("written/{token}"), "content": token}))
            } else {
                ("shell", json!({"command": self.command(&token)}))
            }
        });
        work_calls.collect::<Vec<_>>().into_iter().chain(question).collect()
    }
}

fn failed_reply(random: &mut SeededRandom, reply: Reply) -> Reply {
    match random.below(9) {
        // Unlike the other failures, this one is permanent: the run ends with an error.
        0 => Reply::status(400, json!({"error": {"type": "invalid_request_error", "message": "no"}})),
        1 | 2 => Reply::status(529, json!({"error": {"type": "overloaded_error", "message": "busy"}})),
        3 | 4 => Reply::error_mid_stream("overloaded_error"),
        5 | 6 => Reply::text("Something else").cut(),
        _ => reply.cut_after_text(usize::try_from(random.between(1, 12)).unwrap_or(1)),
    }
}
