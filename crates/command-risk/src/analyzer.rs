//! Interprets a shell script without executing anything, and checks every command in it.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::Risk;
use super::budget::Budget;
use super::parse;
use super::rules;
use super::syntax::{Command, GroupKind, Pipeline, Redirect, RedirectKind, Script, Stage, Word};

/// The character that stands for an unknown part of a value, for example the value of an unset variable or
/// the output of a program. It is a Unicode noncharacter and has no meaning in shell syntax.
pub(super) const UNKNOWN: char = '\u{fdd0}';
/// The maximum number of possible values that are tracked for each variable. If a variable has more, one
/// unknown value stands for the rest.
const MAX_VALUES: usize = 32;
/// The maximum number of combinations of possible variable values that are analyzed for each command. Further
/// combinations are ignored.
const MAX_COMBINATIONS: usize = 256;

/// Properties of a value that depend on where it came from. A value that is derived from other values
/// inherits their properties.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Origin {
    /// The value was downloaded from the network.
    pub(super) network: bool,
    /// The value was decoded, decrypted or unpacked, so that a person cannot read it in the command.
    pub(super) decoded: bool,
    /// The value contains credentials, the environment variables or the whole workspace.
    pub(super) secret: bool,
    /// The value was printed by a program whose output is meant to be evaluated by a shell, for example
    /// `ssh-agent`.
    pub(super) setup: bool,
}

impl Origin {
    pub(super) fn union(self, other: Self) -> Self {
        Self {
            network: self.network || other.network,
            decoded: self.decoded || other.decoded,
            secret: self.secret || other.secret,
            setup: self.setup || other.setup,
        }
    }
}

/// A text and its origin: the value of a variable, a word, or the input or output of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Value {
    /// The text, with one [`UNKNOWN`] in place of each unknown part.
    pub(super) text: String,
    pub(super) origin: Origin,
}

impl Value {
    pub(super) fn known(text: impl Into<String>) -> Self {
        Self { text: text.into(), origin: Origin::default() }
    }

    pub(super) fn unknown(origin: Origin) -> Self {
        Self { text: UNKNOWN.to_string(), origin }
    }

    pub(super) fn push(&mut self, other: &Self) {
        self.text.push_str(&other.text);
        self.origin = self.origin.union(other.origin);
    }

    /// Returns true if no part of the text is known. Whitespace is ignored.
    pub(super) fn is_unknown(&self) -> bool {
        self.text.contains(UNKNOWN) && self.text.chars().all(|c| c == UNKNOWN || c.is_whitespace())
    }
}

/// Analyzes one command. The fields hold the state of the simulated shell.
#[derive(Default)]
pub(super) struct Analyzer {
    pub(super) budget: Budget,
    /// The possible values of each variable, with the most likely value last.
    pub(super) variables: BTreeMap<String, Vec<Value>>,
    /// The combination of variable values being analyzed: for each variable, the index of its value in
    /// `variables`.
    pub(super) chosen: BTreeMap<String, usize>,
    /// The positional parameters `$1`, `$2` and so on. `None` while analyzing a function that the command
    /// never calls: the parameters are then unknown.
    pub(super) positional: Option<Vec<Value>>,
    pub(super) functions: BTreeMap<String, Rc<Script>>,
    /// The names of all functions that the command has called so far.
    called: BTreeSet<String>,
    /// The names of the functions that are being executed, outermost first.
    active: Vec<String>,
    pub(super) aliases: BTreeMap<String, String>,
    /// The scripts that `trap` has registered. They run when the shell exits.
    pub(super) traps: Vec<String>,
    /// The contents of the files that the command has written so far, by absolute path.
    pub(super) written: BTreeMap<String, Value>,
    pub(super) directory: Option<String>,
    /// The standard input of the programs that the current command starts.
    pub(super) input: Rc<Value>,
    /// True if the shell may skip the code that is being analyzed, for example because it follows `&&`. A
    /// variable that is assigned there may then also keep its old value.
    pub(super) may_be_skipped: bool,
}

pub(super) type Analysis<T> = Result<T, Risk>;

impl Analyzer {
    pub(super) fn analyze(&mut self, command: &str) -> Option<Risk> {
        self.positional = Some(Vec::new());
        self.analyze_all(command).err()
    }

    fn analyze_all(&mut self, command: &str) -> Analysis<()> {
        self.script(command)?;
        for script in std::mem::take(&mut self.traps) {
            self.script(&script)?;
        }
        // Functions that were never called are analyzed too, because they may be called in a way that the
        // analyzer does not recognize.
        self.positional = None;
        let functions = std::mem::take(&mut self.functions);
        for (name, body) in functions {
            if !self.called.contains(&name) {
                self.run(&body)?;
            }
        }
        Ok(())
    }

    /// Parses and analyzes a shell script. Returns the output that the script would print.
    pub(super) fn script(&mut self, text: &str) -> Analysis<Value> {
        self.budget.enter()?;
        let script = parse::parse(text, &mut self.budget)?;
        let output = self.run(&script)?;
        self.budget.leave();
        Ok(output)
    }

    pub(super) fn run(&mut self, script: &Script) -> Analysis<Value> {
        self.budget.enter()?;
        let mut output = Value::default();
        for pipeline in &script.pipelines {
            let printed = self.pipeline(pipeline)?;
            self.budget.charge(printed.text.len())?;
            output.push(&printed);
        }
        self.budget.leave();
        Ok(output)
    }

    fn pipeline(&mut self, pipeline: &Pipeline) -> Analysis<Value> {
        let (outer, input) = (self.may_be_skipped, Rc::clone(&self.input));
        self.may_be_skipped |= pipeline.conditional || pipeline.background || pipeline.stages.len() > 1;
        let mut output = Value::default();
        for (number, stage) in pipeline.stages.iter().enumerate() {
            if number > 0 {
                self.input = Rc::new(std::mem::take(&mut output));
            }
            output = self.stage(stage)?;
        }
        self.input = input;
        self.may_be_skipped = outer;
        Ok(output)
    }

    fn stage(&mut self, stage: &Stage) -> Analysis<Value> {
        let input = Rc::clone(&self.input);
        let mut files = Vec::new();
        for redirect in &stage.redirects {
            files.extend(self.redirect(redirect)?);
        }
        let output = match &stage.command {
            Command::Simple(words) => self.simple(words)?,
            Command::Group { kind, body } => self.group(*kind, body)?,
            Command::For { variable, values, body } => self.for_loop(variable, values, body)?,
            Command::Function { name, body } => {
                rules::fork_bomb(name, body)?;
                self.functions.insert(name.clone(), Rc::clone(body));
                Value::default()
            }
        };
        self.input = input;
        if files.is_empty() {
            return Ok(output);
        }
        for (path, appends) in files {
            self.write(&path, &output, appends)?;
        }
        Ok(Value::default())
    }

    /// Applies a redirection. If it redirects standard output to a file, returns the file's path, and true if
    /// the output is appended.
    fn redirect(&mut self, redirect: &Redirect) -> Analysis<Option<(String, bool)>> {
        if let RedirectKind::HereDocument(body) = &redirect.kind {
            if let Some(word) = body.get() {
                self.input = Rc::new(self.joined(word)?);
            }
            return Ok(None);
        }
        let target = self.joined(&redirect.target)?;
        rules::redirect(&target, &redirect.kind)?;
        let is_output = redirect.fd.as_deref().is_none_or(|fd| fd == "1");
        Ok(match redirect.kind {
            RedirectKind::HereString => {
                self.input = Rc::new(target);
                None
            }
            RedirectKind::In => {
                self.input = Rc::new(self.read(&target));
                None
            }
            RedirectKind::Out if is_output => Some((target.text, false)),
            RedirectKind::Append if is_output => Some((target.text, true)),
            _ => None,
        })
    }

    fn group(&mut self, kind: GroupKind, body: &Script) -> Analysis<Value> {
        let (outer, directory) = (self.may_be_skipped, self.directory.clone());
        self.may_be_skipped |= kind != GroupKind::Braces;
        let mut output = self.run(body)?;
        if kind == GroupKind::Loop {
            // The loop body is analyzed twice: from the second iteration on, variables may have the values
            // that the first iteration assigned.
            output.push(&self.run(body)?);
        }
        self.may_be_skipped = outer;
        if kind == GroupKind::Subshell {
            self.directory = directory;
        }
        Ok(output)
    }

    fn for_loop(&mut self, variable: &str, values: &[Word], body: &Script) -> Analysis<Value> {
        let mut fields = Vec::new();
        for word in values {
            fields.append(&mut self.fields(word)?);
        }
        if !self.may_be_skipped {
            self.variables.remove(variable);
        }
        let outer = std::mem::replace(&mut self.may_be_skipped, true);
        for field in fields {
            self.assign(variable, field);
        }
        self.may_be_skipped = outer;
        self.group(GroupKind::Loop, body)
    }

    /// Assigns a value to a variable. If the shell may skip the assignment, the previous values remain
    /// possible.
    pub(super) fn assign(&mut self, name: &str, value: Value) {
        let values = self.variables.entry(name.to_owned()).or_default();
        if !self.may_be_skipped {
            values.clear();
        }
        values.retain(|known| *known != value);
        if values.len() < MAX_VALUES {
            values.push(value);
        } else if !values.iter().any(Value::is_unknown) {
            values.push(Value::unknown(value.origin));
        }
    }

    /// Analyzes a simple command once for each combination of the possible values of its variables.
    fn simple(&mut self, words: &[Word]) -> Analysis<Value> {
        let mut names = BTreeMap::new();
        for word in words {
            self.ambiguous(word, &mut names);
        }
        let combinations = names.values().product::<usize>().min(MAX_COMBINATIONS);
        let outer = self.chosen.clone();
        let mut output = Value::default();
        for mut combination in 0..combinations {
            for (name, count) in &names {
                self.chosen.insert(name.clone(), combination % count);
                combination /= count;
            }
            output.push(&self.with_chosen_values(words)?);
        }
        self.chosen = outer;
        Ok(output)
    }

    fn with_chosen_values(&mut self, words: &[Word]) -> Analysis<Value> {
        let mut assignments = Vec::new();
        let mut rest = words;
        while let [word, after @ ..] = rest
            && let Some((name, appends, value)) = self.assignment(word)?
        {
            assignments.push((name, appends, value));
            rest = after;
        }
        let outer = self.may_be_skipped;
        self.may_be_skipped |= !rest.is_empty();
        for (name, appends, mut value) in assignments {
            if appends {
                let mut before = self.variable(&name);
                before.push(&value);
                value = before;
            }
            self.assign(&name, value);
        }
        self.may_be_skipped = outer;
        let mut argv = Vec::new();
        for word in rest {
            argv.append(&mut self.fields(word)?);
        }
        self.command(&argv)
    }

    /// Analyzes a call of a shell function that the command has defined. A recursive call is not followed and
    /// returns no output.
    pub(super) fn call(&mut self, name: &str, args: &[Value]) -> Analysis<Value> {
        let Some(body) = self.functions.get(name).cloned() else { return Ok(Value::default()) };
        self.called.insert(name.to_owned());
        if self.active.iter().any(|active| active == name) {
            return Ok(Value::default());
        }
        self.active.push(name.to_owned());
        let outer = self.positional.replace(args.to_vec());
        let output = self.run(&body)?;
        self.positional = outer;
        self.active.pop();
        Ok(output)
    }
}
