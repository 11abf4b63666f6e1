//! Goes through a script as a shell would, and judges every command in it.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::Danger;
use super::budget::Budget;
use super::parse;
use super::rules;
use super::syntax::{Command, Item, Kind, Redirect, RedirectKind, Script, Stage, Word};

/// Stands for what cannot be known: the value of a variable that nobody set, the output of a program. A
/// noncharacter, so that it means nothing in a command.
pub(super) const UNKNOWN: char = '\u{fdd0}';
/// Values of one variable that are told apart; after that it may be anything.
const MAX_VALUES: usize = 32;
/// Ways to choose among the values of the variables in one command; the rest is not tried.
const MAX_WORLDS: usize = 256;

/// Where a text comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Origin {
    /// From the network.
    pub(super) network: bool,
    /// Decoded, decrypted, unpacked or otherwise made unreadable before.
    pub(super) decoded: bool,
    /// Credentials, the environment or the whole workspace.
    pub(super) secret: bool,
    /// Printed by a program to be evaluated, as `ssh-agent` does.
    pub(super) setup: bool,
}

impl Origin {
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            network: self.network || other.network,
            decoded: self.decoded || other.decoded,
            secret: self.secret || other.secret,
            setup: self.setup || other.setup,
        }
    }
}

/// A value, a word, what a program reads or writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Text {
    /// With [`UNKNOWN`] for each part that is not known.
    pub(super) text: String,
    pub(super) origin: Origin,
}

impl Text {
    pub(super) fn known(text: impl Into<String>) -> Self {
        Self { text: text.into(), origin: Origin::default() }
    }

    pub(super) fn unknown(origin: Origin) -> Self {
        Self { text: UNKNOWN.to_string(), origin }
    }

    pub(super) fn push(&mut self, other: &Self) {
        self.text.push_str(&other.text);
        self.origin = self.origin.and(other.origin);
    }

    /// Whether nothing of it is known.
    pub(super) fn is_unknown(&self) -> bool {
        self.text.contains(UNKNOWN) && self.text.chars().all(|c| c == UNKNOWN || c.is_whitespace())
    }
}

/// The judge of one command, and what it knows at the point where it reads.
#[derive(Default)]
pub(super) struct Judge {
    pub(super) budget: Budget,
    /// Every value that a variable may have here; the last is the likeliest.
    pub(super) variables: BTreeMap<String, Vec<Text>>,
    /// Which of its values each variable has in the command that is read.
    pub(super) chosen: BTreeMap<String, usize>,
    /// `$1`, `$2`, …; `None` in a function that nobody called.
    pub(super) positional: Option<Vec<Text>>,
    pub(super) functions: BTreeMap<String, Rc<Script>>,
    /// Functions that were called, and those that are being called.
    called: BTreeSet<String>,
    active: Vec<String>,
    pub(super) aliases: BTreeMap<String, String>,
    /// What is run when the shell ends.
    pub(super) traps: Vec<String>,
    /// What the command wrote to files itself, by their absolute paths.
    pub(super) written: BTreeMap<String, Text>,
    pub(super) directory: Option<String>,
    /// What a program that is started here reads.
    pub(super) input: Rc<Text>,
    /// Whether assignments may not happen, so that older values stay possible.
    pub(super) may_not_happen: bool,
}

pub(super) type Verdict<T> = Result<T, Danger>;

impl Judge {
    pub(super) fn judge(&mut self, command: &str) -> Option<Danger> {
        self.positional = Some(Vec::new());
        self.whole(command).err()
    }

    fn whole(&mut self, command: &str) -> Verdict<()> {
        self.script(command)?;
        for script in std::mem::take(&mut self.traps) {
            self.script(&script)?;
        }
        // A function that nobody seems to call may be called in a way that was not understood.
        self.positional = None;
        let functions = std::mem::take(&mut self.functions);
        for (name, body) in functions {
            if !self.called.contains(&name) {
                self.run(&body)?;
            }
        }
        Ok(())
    }

    /// Judges a text that a shell is given; what it prints.
    pub(super) fn script(&mut self, text: &str) -> Verdict<Text> {
        self.budget.enter()?;
        let script = parse::parse(text, &mut self.budget)?;
        let output = self.run(&script)?;
        self.budget.leave();
        Ok(output)
    }

    pub(super) fn run(&mut self, script: &Script) -> Verdict<Text> {
        self.budget.enter()?;
        let mut output = Text::default();
        for item in &script.items {
            let printed = self.item(item)?;
            self.budget.charge(printed.text.len())?;
            output.push(&printed);
        }
        self.budget.leave();
        Ok(output)
    }

    fn item(&mut self, item: &Item) -> Verdict<Text> {
        let (outer, input) = (self.may_not_happen, Rc::clone(&self.input));
        self.may_not_happen |= item.conditional || item.background || item.stages.len() > 1;
        let mut output = Text::default();
        for (number, stage) in item.stages.iter().enumerate() {
            if number > 0 {
                self.input = Rc::new(std::mem::take(&mut output));
            }
            output = self.stage(stage)?;
        }
        self.input = input;
        self.may_not_happen = outer;
        Ok(output)
    }

    fn stage(&mut self, stage: &Stage) -> Verdict<Text> {
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
                Text::default()
            }
        };
        self.input = input;
        if files.is_empty() {
            return Ok(output);
        }
        for (path, appends) in files {
            self.write(&path, &output, appends)?;
        }
        Ok(Text::default())
    }

    /// Follows a redirection; the file that standard output goes to.
    fn redirect(&mut self, redirect: &Redirect) -> Verdict<Option<(String, bool)>> {
        if let RedirectKind::Here(body) = &redirect.kind {
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

    fn group(&mut self, kind: Kind, body: &Script) -> Verdict<Text> {
        let (outer, directory) = (self.may_not_happen, self.directory.clone());
        self.may_not_happen |= kind != Kind::Braces;
        let mut output = self.run(body)?;
        if kind == Kind::Loop {
            // A second round knows what the first one assigned at its end.
            output.push(&self.run(body)?);
        }
        self.may_not_happen = outer;
        if kind == Kind::Subshell {
            self.directory = directory;
        }
        Ok(output)
    }

    fn for_loop(&mut self, variable: &str, values: &[Word], body: &Script) -> Verdict<Text> {
        let mut fields = Vec::new();
        for word in values {
            fields.append(&mut self.fields(word)?);
        }
        if !self.may_not_happen {
            self.variables.remove(variable);
        }
        let outer = std::mem::replace(&mut self.may_not_happen, true);
        for field in fields {
            self.assign(variable, field);
        }
        self.may_not_happen = outer;
        self.group(Kind::Loop, body)
    }

    /// Gives a variable a value; the ones before stay possible if this may not happen.
    pub(super) fn assign(&mut self, name: &str, value: Text) {
        let values = self.variables.entry(name.to_owned()).or_default();
        if !self.may_not_happen {
            values.clear();
        }
        values.retain(|known| *known != value);
        if values.len() < MAX_VALUES {
            values.push(value);
        } else if !values.iter().any(Text::is_unknown) {
            values.push(Text::unknown(value.origin));
        }
    }

    /// Judges a simple command, for each value that the variables in it may have.
    fn simple(&mut self, words: &[Word]) -> Verdict<Text> {
        let mut names = BTreeMap::new();
        for word in words {
            self.ambiguous(word, &mut names);
        }
        let worlds = names.values().product::<usize>().min(MAX_WORLDS);
        let outer = self.chosen.clone();
        let mut output = Text::default();
        for mut world in 0..worlds {
            for (name, count) in &names {
                self.chosen.insert(name.clone(), world % count);
                world /= count;
            }
            output.push(&self.in_one_world(words)?);
        }
        self.chosen = outer;
        Ok(output)
    }

    fn in_one_world(&mut self, words: &[Word]) -> Verdict<Text> {
        let mut assignments = Vec::new();
        let mut rest = words;
        while let [word, after @ ..] = rest
            && let Some((name, appends, value)) = self.assignment(word)?
        {
            assignments.push((name, appends, value));
            rest = after;
        }
        let outer = self.may_not_happen;
        self.may_not_happen |= !rest.is_empty();
        for (name, appends, mut value) in assignments {
            if appends {
                let mut before = self.variable(&name);
                before.push(&value);
                value = before;
            }
            self.assign(&name, value);
        }
        self.may_not_happen = outer;
        let mut argv = Vec::new();
        for word in rest {
            argv.append(&mut self.fields(word)?);
        }
        self.command(&argv)
    }

    /// Calls a function of the command's own.
    pub(super) fn call(&mut self, name: &str, args: &[Text]) -> Verdict<Text> {
        let Some(body) = self.functions.get(name).cloned() else { return Ok(Text::default()) };
        self.called.insert(name.to_owned());
        if self.active.iter().any(|active| active == name) {
            return Ok(Text::default());
        }
        self.active.push(name.to_owned());
        let outer = self.positional.replace(args.to_vec());
        let output = self.run(&body)?;
        self.positional = outer;
        self.active.pop();
        Ok(output)
    }
}
