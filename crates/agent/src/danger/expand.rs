//! Words as they reach a program: braces, variables, the output of other commands, splitting.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::budget;
use super::judge::{Judge, Origin, Text, UNKNOWN, Verdict};
use super::syntax::{Form, Part, Script, Word};
use super::words::is_name;

/// Words that braces may make of one; nobody needs more.
const MAX_BRACED: usize = 512;

/// A piece of a word.
#[derive(Clone, Copy)]
enum Atom<'a> {
    /// A character that braces may be made of.
    Bare(char),
    Quoted(char),
    Part(&'a Part),
}

/// The words that are being made of one.
#[derive(Default)]
struct Fields {
    done: Vec<Text>,
    open: Text,
    /// Whether the open one is a word even if it is empty.
    counts: bool,
}

impl Fields {
    fn close(&mut self) {
        let open = std::mem::take(&mut self.open);
        if self.counts || !open.text.is_empty() {
            self.done.push(open);
        }
        self.counts = false;
    }
}

impl Judge {
    /// The words that a word becomes.
    pub(super) fn fields(&mut self, word: &Word) -> Verdict<Vec<Text>> {
        let mut fields = Fields::default();
        for atoms in self.braces(word)? {
            for atom in atoms {
                match atom {
                    Atom::Bare(c) | Atom::Quoted(c) => {
                        fields.open.text.push(c);
                        fields.counts = true;
                    }
                    Atom::Part(part) => self.append(part, &mut fields)?,
                }
            }
            fields.close();
        }
        Ok(fields.done)
    }

    /// The one text that a word becomes where nothing is split.
    pub(super) fn joined(&mut self, word: &Word) -> Verdict<Text> {
        let mut fields = Fields::default();
        let mut joined = Text::default();
        for part in &word.parts {
            if let Part::Text { text, .. } = part {
                self.budget.charge(text.len())?;
                joined.text.push_str(text);
                continue;
            }
            if let Some((value, _)) = self.value(part)? {
                self.budget.charge(value.text.len())?;
                joined.push(&value);
            } else {
                self.append(part, &mut fields)?;
                joined.push(&std::mem::take(&mut fields.open));
            }
        }
        Ok(joined)
    }

    fn append(&mut self, part: &Part, fields: &mut Fields) -> Verdict<()> {
        match part {
            Part::Text { .. } => fields.counts = true,
            Part::Silent(word) => drop(self.joined(word)?),
            Part::Process(script) => {
                // What reads it finds the output under a name of its own; what writes to it is read here.
                let output = self.capture(script)?;
                let name = format!("/dev/fd/{}", 63 + self.written.len());
                let origin = output.origin;
                self.written.insert(name.clone(), output);
                fields.open.push(&Text { text: name, origin });
                fields.counts = true;
            }
            Part::Parameter { .. } | Part::Script { .. } => {
                let Some((value, splits)) = self.value(part)? else { return Ok(()) };
                self.budget.charge(value.text.len())?;
                if splits {
                    self.split(&value, fields);
                } else {
                    fields.open.push(&value);
                    fields.counts = true;
                }
            }
        }
        Ok(())
    }

    /// The value of a variable or of a command's output, and whether it is split.
    fn value(&mut self, part: &Part) -> Verdict<Option<(Text, bool)>> {
        Ok(match part {
            Part::Parameter { parameter, quoted } => {
                let is_list = matches!(parameter.name.as_str(), "@" | "*")
                    || matches!(parameter.index.as_deref(), Some("@" | "*"));
                let mut value = self.parameter(parameter)?;
                if is_list {
                    value.text = value.text.trim().to_owned();
                }
                Some((value, !quoted || is_list))
            }
            Part::Script { script, quoted } => {
                let mut output = self.capture(script)?;
                output.text.truncate(output.text.trim_end_matches('\n').len());
                Some((output, !quoted))
            }
            _ => None,
        })
    }

    /// What a script prints whose output becomes part of a word.
    pub(super) fn capture(&mut self, script: &Script) -> Verdict<Text> {
        let (outer, directory) = (self.may_not_happen, self.directory.clone());
        let (chosen, input) = (self.chosen.clone(), Rc::clone(&self.input));
        self.may_not_happen = true;
        let output = self.run(script)?;
        (self.may_not_happen, self.directory) = (outer, directory);
        (self.chosen, self.input) = (chosen, input);
        Ok(output)
    }

    fn split(&self, value: &Text, fields: &mut Fields) {
        let separators = self.variables.get("IFS").and_then(|values| values.last());
        let separators = separators.map_or("", |value| value.text.as_str());
        for c in value.text.chars() {
            if matches!(c, ' ' | '\t' | '\n') || separators.contains(c) {
                fields.close();
                continue;
            }
            fields.open.text.push(c);
            fields.open.origin = fields.open.origin.and(value.origin);
        }
    }

    /// Takes the braces of a word apart: `{a,b}c` is `ac` and `bc`. Numbers (`{1..9}`) stay as they are.
    fn braces<'a>(&mut self, word: &'a Word) -> Verdict<Vec<Vec<Atom<'a>>>> {
        let mut atoms = Vec::new();
        for part in &word.parts {
            match part {
                Part::Text { text, quoted: true } if text.is_empty() => atoms.push(Atom::Part(part)),
                Part::Text { text, quoted: true } => atoms.extend(text.chars().map(Atom::Quoted)),
                Part::Text { text, .. } => atoms.extend(text.chars().map(Atom::Bare)),
                part => atoms.push(Atom::Part(part)),
            }
        }
        let mut done = Vec::new();
        // Last in, first out; each with where its first brace may be.
        let mut open = vec![(atoms, 0)];
        while let Some((atoms, from)) = open.pop() {
            self.budget.charge(atoms.len() + 1)?;
            let Some(start) = position(&atoms, from, '{') else {
                done.push(atoms);
                if done.len() > MAX_BRACED {
                    return Err(budget::unreadable("it expands to too much to be judged"));
                }
                continue;
            };
            let Some((choices, end)) = choices(&atoms, start) else {
                open.push((atoms, start + 1));
                continue;
            };
            let prefix = atoms.get(..start).unwrap_or_default();
            let suffix = atoms.get(end + 1..).unwrap_or_default();
            for choice in choices.iter().rev() {
                self.budget.charge(atoms.len())?;
                open.push(([prefix, choice, suffix].concat(), start));
            }
        }
        Ok(done)
    }

    /// Notes how many values each variable of a word may have, where there are several.
    pub(super) fn ambiguous(&self, word: &Word, names: &mut BTreeMap<String, usize>) {
        for part in &word.parts {
            let Part::Parameter { parameter, .. } = part else { continue };
            let count = self.variables.get(&parameter.name).map_or(0, Vec::len);
            if count > 1 {
                names.insert(parameter.name.clone(), count);
            }
            if let Form::Default(inner) | Form::Assign(inner) | Form::Alternative(inner) = &parameter.form {
                self.ambiguous(inner, names);
            }
        }
    }

    /// Reads a word as an assignment: the name, whether it appends, the value.
    pub(super) fn assignment(&mut self, word: &Word) -> Verdict<Option<(String, bool, Text)>> {
        let Some(Part::Text { text, quoted: false }) = word.parts.first() else { return Ok(None) };
        let Some((name, _)) = text.split_once('=') else { return Ok(None) };
        let (name, appends) = name.strip_suffix('+').map_or((name, false), |name| (name, true));
        let bare = name.split_once('[').map_or(name, |(bare, _)| bare);
        if bare.is_empty() || !bare.chars().all(is_name) || bare.starts_with(|c: char| c.is_ascii_digit()) {
            return Ok(None);
        }
        let bare = bare.to_owned();
        let whole = self.joined(word)?;
        let value = whole.text.split_once('=').map(|(_, value)| value.to_owned()).unwrap_or_default();
        Ok(Some((bare, appends, Text { text: value, origin: whole.origin })))
    }

    /// What a variable holds here.
    pub(super) fn variable(&mut self, name: &str) -> Text {
        if let Some(values) = self.variables.get(name) {
            let chosen = self.chosen.get(name).and_then(|number| values.get(*number));
            return chosen.or(values.last()).cloned().unwrap_or_default();
        }
        let position = name.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
        match (name, position, &self.positional) {
            ("@" | "*", _, Some(args)) => {
                let mut joined = Text::default();
                for arg in args {
                    joined.push(&Text::known(" "));
                    joined.push(arg);
                }
                joined.text = joined.text.trim_start().to_owned();
                joined
            }
            (_, Some(number), Some(args)) => args.get(number).cloned().unwrap_or_default(),
            ("HOME", ..) => Text::known("~"),
            ("PWD", ..) => Text::known(self.here()),
            ("TMPDIR", ..) => Text::known("/tmp"),
            ("IFS", ..) => Text::known(" \t\n"),
            ("0", ..) => Text::known("sh"),
            ("#" | "?" | "$" | "!" | "RANDOM" | "SECONDS" | "LINENO" | "UID", ..) => Text::known("1"),
            ("-", ..) => Text::default(),
            _ => Text::unknown(Origin::default()),
        }
    }
}

fn position(atoms: &[Atom<'_>], from: usize, wanted: char) -> Option<usize> {
    let rest = atoms.get(from..)?;
    rest.iter().position(|atom| matches!(atom, Atom::Bare(c) if *c == wanted)).map(|at| from + at)
}

/// The choices between the brace at `start` and its end, if there are several; and that end.
fn choices<'a>(atoms: &[Atom<'a>], start: usize) -> Option<(Vec<Vec<Atom<'a>>>, usize)> {
    let mut depth = 0_usize;
    let mut choices = vec![Vec::new()];
    for (at, atom) in atoms.iter().enumerate().skip(start + 1) {
        match atom {
            Atom::Bare('{') => depth += 1,
            Atom::Bare('}') if depth == 0 => {
                if choices.len() > 1 {
                    return Some((choices, at));
                }
                return range(choices.first()?).map(|choices| (choices, at));
            }
            Atom::Bare('}') => depth -= 1,
            Atom::Bare(',') if depth == 0 => {
                choices.push(Vec::new());
                continue;
            }
            _ => {}
        }
        choices.last_mut()?.push(*atom);
    }
    None
}

/// The letters of `a..e`.
fn range<'a>(atoms: &[Atom<'a>]) -> Option<Vec<Vec<Atom<'a>>>> {
    let [Atom::Bare(from), Atom::Bare('.'), Atom::Bare('.'), Atom::Bare(to)] = atoms else { return None };
    if from.is_ascii_digit() || !from.is_ascii() || !to.is_ascii() {
        return None;
    }
    let (low, high) = if from <= to { (*from, *to) } else { (*to, *from) };
    Some((low..=high).map(|c| vec![Atom::Bare(c)]).collect())
}

/// Whether a text is not known, or only in part.
pub(super) fn is_partly_unknown(text: &str) -> bool {
    text.contains(UNKNOWN)
}
