//! The model: what it says is decided by what it is told, so that an attempt that is made again says the same; how it
//! fails is decided by dice.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use herm_testkit::model_server::{Gate, ModelServer, RecordedRequest, Reply};
use serde_json::{Value, json};

use crate::history::dice::Dice;
use crate::history::marks;

/// The file of a workspace to which each command adds a line of its own.
pub(super) const TOKENS: &str = "tokens.txt";
/// What the name of a thread's last message begins with.
const PROBE: &str = "probe.";
/// Calls that a message leads to at most, one or two in a step.
const MAX_CALLS: u64 = 3;
/// Of a hundred requests: those that fail.
const FAILURES: u64 = 6;
/// Of a hundred messages: those on which the agent asks a person.
const ASKING: u64 = 12;
/// Of a hundred calls: those that write a file; the others run a command.
const WRITING: u64 = 30;
/// How long a command goes on at most after its effect, in hundredths of a second.
const MAX_LINGER: u64 = 40;

#[derive(Clone)]
pub(super) struct Script(Arc<Inner>);

struct Inner {
    seed: u64,
    dice: Mutex<Dice>,
    /// Answers that go on once their beginning has been read.
    gates: Mutex<HashMap<String, Gate>>,
    /// What the model was told of, by a thread's last message.
    told: Mutex<BTreeMap<String, Told>>,
    /// Answers go on although nobody reads.
    runs_on: AtomicBool,
}

/// Messages that the model was told of: as such, and as the answers to calls.
#[derive(Clone, Default)]
pub(super) struct Told {
    pub(super) heard: Vec<String>,
    pub(super) answers: Vec<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name of the message that a thread ends with.
pub(super) fn probe(thread: &str) -> String {
    format!("{PROBE}{thread}")
}

impl Script {
    pub(super) fn new(seed: u64) -> Self {
        let dice = Mutex::new(Dice::new(seed ^ 0x6d6f_6465_6c00));
        Self(Arc::new(Inner {
            seed,
            dice,
            gates: Mutex::default(),
            told: Mutex::default(),
            runs_on: AtomicBool::new(false),
        }))
    }

    pub(super) fn play(&self, model: &ModelServer) {
        let script = self.clone();
        model.record(false);
        model.respond_with(move |request| script.reply(request));
    }

    /// Whether the agent asks a person when it gets this message.
    fn asks(&self, name: &str) -> bool {
        Dice::of(self.0.seed, &format!("ask {name}")).percent(ASKING)
    }

    /// The command that adds a token: its line is written at once, and then it goes on for a while.
    pub(super) fn command(&self, token: &str) -> String {
        let linger = Dice::of(self.0.seed, token).below(MAX_LINGER);
        format!("echo {token} >> {TOKENS}; sleep 0.{linger:02}")
    }

    /// What the model was told of when it got the last message of a thread.
    pub(super) fn told_by(&self, probe: &str) -> Told {
        lock(&self.0.told).get(probe).cloned().unwrap_or_default()
    }

    /// A reader has read so much of a message: the answer that it begins goes on.
    pub(super) fn is_read(&self, beginning: &str) {
        if let Some((answer, _)) = beginning.split_once(' ') {
            self.gate(answer).open();
        }
    }

    /// Says whether answers go on although nobody reads them.
    pub(super) fn run_on(&self, runs_on: bool) {
        self.0.runs_on.store(runs_on, Ordering::SeqCst);
        if runs_on {
            lock(&self.0.gates).values().for_each(Gate::open);
        }
    }

    fn gate(&self, answer: &str) -> Gate {
        let gate = lock(&self.0.gates).entry(answer.to_owned()).or_default().clone();
        if self.0.runs_on.load(Ordering::SeqCst) {
            gate.open();
        }
        gate
    }

    fn reply(&self, request: &RecordedRequest) -> Reply {
        let heard = marks::heard(request.body());
        let name = heard.last().cloned().unwrap_or_default();
        if name.starts_with(PROBE) {
            let answers = marks::answers(request);
            lock(&self.0.told).insert(name, Told { heard, answers });
            return Reply::text("All ").then_text("heard.");
        }
        let answer = self.answer(&name, request);
        let mut dice = lock(&self.0.dice);
        if dice.percent(FAILURES) { fail(&mut dice, answer) } else { answer }
    }

    fn answer(&self, name: &str, request: &RecordedRequest) -> Reply {
        let mut dice = Dice::of(self.0.seed, name);
        let calls = self.calls(name, request, &mut dice);
        let at_once = usize::try_from(dice.between(1, 2)).unwrap_or(1);
        let made = request.tool_results_since_user().len();
        let begun = format!("{name}.{made}");
        let reply = Reply::text(format!("{begun} ")).gate(&self.gate(&begun));
        let reply = reply.text_in(["one ", "two ", "three «é» ", "four."]);
        let next = calls.into_iter().skip(made).take(at_once);
        next.fold(reply, |reply, (tool, arguments)| reply.tool_call(tool, arguments))
    }

    /// All calls that a message leads to.
    fn calls(&self, name: &str, request: &RecordedRequest, dice: &mut Dice) -> Vec<(&'static str, Value)> {
        let has_sandbox = request.tool_names().iter().any(|tool| tool == "shell");
        let asks = self.asks(name).then(|| ("ask_human", json!({"question": format!("{name}: on?")})));
        let count = if has_sandbox { dice.below(MAX_CALLS + 1) } else { 0 };
        let works = (0..count).map(|number| {
            let token = format!("{name}.{number}");
            if dice.percent(WRITING) {
                ("write_file", json!({"path": format!("written/{token}"), "content": token}))
            } else {
                ("shell", json!({"command": self.command(&token)}))
            }
        });
        works.collect::<Vec<_>>().into_iter().chain(asks).collect()
    }
}

fn fail(dice: &mut Dice, answer: Reply) -> Reply {
    match dice.below(9) {
        // The only one that ends the run.
        0 => Reply::status(400, json!({"error": {"type": "invalid_request_error", "message": "no"}})),
        1 | 2 => Reply::status(529, json!({"error": {"type": "overloaded_error", "message": "busy"}})),
        3 | 4 => Reply::error_mid_stream("overloaded_error"),
        5 | 6 => Reply::text("Something else").cut(),
        _ => answer.cut_after_text(usize::try_from(dice.between(1, 12)).unwrap_or(1)),
    }
}
