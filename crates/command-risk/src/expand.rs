//! Word expansion: brace expansion, parameter expansion, command substitution and field splitting.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::analyzer::{Analysis, Analyzer, Origin, UNKNOWN, Value};
use super::budget;
use super::parse_word::is_name;
use super::syntax::{Operation, Part, Script, Word};

/// The maximum number of words that brace expansion may produce from one word. A command that exceeds it is
/// reported as `unreadable`.
const MAX_BRACE_WORDS: usize = 512;

/// A unit into which a word is split for brace expansion.
#[derive(Clone, Copy)]
enum BraceToken<'a> {
    /// An unquoted character. Only unquoted braces and commas can form a brace expression.
    Unquoted(char),
    Quoted(char),
    Part(&'a Part),
}

/// The fields that result from splitting a word.
#[derive(Default)]
struct Fields {
    finished: Vec<Value>,
    current: Value,
    /// True if the current field must be retained even if it is empty, for example because it contains
    /// quotes.
    keep_empty: bool,
}

impl Fields {
    fn end_field(&mut self) {
        let field = std::mem::take(&mut self.current);
        if self.keep_empty || !field.text.is_empty() {
            self.finished.push(field);
        }
        self.keep_empty = false;
    }
}

impl Analyzer {
    /// Expands a word and splits the result into fields.
    pub(super) fn fields(&mut self, word: &Word) -> Analysis<Vec<Value>> {
        let mut fields = Fields::default();
        for tokens in self.braces(word)? {
            for token in tokens {
                match token {
                    BraceToken::Unquoted(c) | BraceToken::Quoted(c) => {
                        fields.current.text.push(c);
                        fields.keep_empty = true;
                    }
                    BraceToken::Part(part) => self.append(part, &mut fields)?,
                }
            }
            fields.end_field();
        }
        Ok(fields.finished)
    }

    /// Expands a word into a single value, without field splitting.
    pub(super) fn joined(&mut self, word: &Word) -> Analysis<Value> {
        let mut fields = Fields::default();
        let mut joined = Value::default();
        for part in &word.parts {
            if let Part::Literal { text, .. } = part {
                self.budget.charge(text.len())?;
                joined.text.push_str(text);
                continue;
            }
            if let Some((value, _)) = self.value(part)? {
                self.budget.charge(value.text.len())?;
                joined.push(&value);
            } else {
                self.append(part, &mut fields)?;
                joined.push(&std::mem::take(&mut fields.current));
            }
        }
        Ok(joined)
    }

    fn append(&mut self, part: &Part, fields: &mut Fields) -> Analysis<()> {
        match part {
            Part::Literal { .. } => fields.keep_empty = true,
            Part::Discarded(word) => drop(self.joined(word)?),
            Part::ProcessSubstitution(script) => {
                // `<(…)` expands to the name of a file from which a program can read the script's output.
                // `>(…)` expands to the name of a file to which a program writes the script's input. The
                // analyzer does not distinguish the two and ignores this input.
                let output = self.capture(script)?;
                let name = format!("/dev/fd/{}", 63 + self.written.len());
                let origin = output.origin;
                self.written.insert(name.clone(), output);
                fields.current.push(&Value { text: name, origin });
                fields.keep_empty = true;
            }
            Part::Parameter { .. } | Part::CommandSubstitution { .. } => {
                let Some((value, splits)) = self.value(part)? else { return Ok(()) };
                self.budget.charge(value.text.len())?;
                if splits {
                    self.split(&value, fields);
                } else {
                    fields.current.push(&value);
                    fields.keep_empty = true;
                }
            }
        }
        Ok(())
    }

    /// Returns the value of a parameter expansion or command substitution, and true if the value is subject
    /// to field splitting. Returns `None` for other parts of a word.
    fn value(&mut self, part: &Part) -> Analysis<Option<(Value, bool)>> {
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
            Part::CommandSubstitution { script, quoted } => {
                let mut output = self.capture(script)?;
                output.text.truncate(output.text.trim_end_matches('\n').len());
                Some((output, !quoted))
            }
            _ => None,
        })
    }

    /// Analyzes the script of a command substitution and returns its output. The script runs in a subshell,
    /// so its assignments do not reach the parent shell. The analysis does not track this exactly: afterwards
    /// it treats both the old and the new values of the assigned variables as possible.
    pub(super) fn capture(&mut self, script: &Script) -> Analysis<Value> {
        let (outer, directory) = (self.may_be_skipped, self.directory.clone());
        let (chosen, input) = (self.chosen.clone(), Rc::clone(&self.input));
        self.may_be_skipped = true;
        let output = self.run(script)?;
        (self.may_be_skipped, self.directory) = (outer, directory);
        (self.chosen, self.input) = (chosen, input);
        Ok(output)
    }

    fn split(&self, value: &Value, fields: &mut Fields) {
        let separators = self.variables.get("IFS").and_then(|values| values.last());
        let separators = separators.map_or("", |value| value.text.as_str());
        for c in value.text.chars() {
            if matches!(c, ' ' | '\t' | '\n') || separators.contains(c) {
                fields.end_field();
                continue;
            }
            fields.current.text.push(c);
            fields.current.origin = fields.current.origin.union(value.origin);
        }
    }

    /// Expands brace expressions: `{a,b}c` becomes `ac` and `bc`. Numeric ranges such as `{1..9}` are not
    /// expanded.
    fn braces<'a>(&mut self, word: &'a Word) -> Analysis<Vec<Vec<BraceToken<'a>>>> {
        let mut tokens = Vec::new();
        for part in &word.parts {
            match part {
                Part::Literal { text, quoted: true } if text.is_empty() => {
                    tokens.push(BraceToken::Part(part));
                }
                Part::Literal { text, quoted: true } => tokens.extend(text.chars().map(BraceToken::Quoted)),
                Part::Literal { text, .. } => tokens.extend(text.chars().map(BraceToken::Unquoted)),
                part => tokens.push(BraceToken::Part(part)),
            }
        }
        let mut expanded = Vec::new();
        // A stack of words that may still contain brace expressions, each with the position at which the
        // search for `{` continues.
        let mut stack = vec![(tokens, 0)];
        while let Some((tokens, from)) = stack.pop() {
            self.budget.charge(tokens.len() + 1)?;
            let Some(start) = position(&tokens, from, '{') else {
                expanded.push(tokens);
                if expanded.len() > MAX_BRACE_WORDS {
                    return Err(budget::unreadable("it expands to too much text to be analyzed"));
                }
                continue;
            };
            let Some((choices, end)) = choices(&tokens, start) else {
                stack.push((tokens, start + 1));
                continue;
            };
            let prefix = tokens.get(..start).unwrap_or_default();
            let suffix = tokens.get(end + 1..).unwrap_or_default();
            for choice in choices.iter().rev() {
                self.budget.charge(tokens.len())?;
                stack.push(([prefix, choice, suffix].concat(), start));
            }
        }
        Ok(expanded)
    }

    /// Searches the word for variables with several possible values. Adds the name of each such variable,
    /// with its number of values, to `names`.
    pub(super) fn ambiguous(&self, word: &Word, names: &mut BTreeMap<String, usize>) {
        for part in &word.parts {
            let Part::Parameter { parameter, .. } = part else { continue };
            let count = self.variables.get(&parameter.name).map_or(0, Vec::len);
            if count > 1 {
                names.insert(parameter.name.clone(), count);
            }
            if let Operation::Default(inner) | Operation::Assign(inner) | Operation::Alternative(inner) =
                &parameter.operation
            {
                self.ambiguous(inner, names);
            }
        }
    }

    /// Parses a word as an assignment. Returns the variable's name, true if the assignment appends (`+=`),
    /// and the value. Returns `None` if the word is not an assignment.
    pub(super) fn assignment(&mut self, word: &Word) -> Analysis<Option<(String, bool, Value)>> {
        let Some(Part::Literal { text, quoted: false }) = word.parts.first() else { return Ok(None) };
        let Some((name, _)) = text.split_once('=') else { return Ok(None) };
        let (name, appends) = name.strip_suffix('+').map_or((name, false), |name| (name, true));
        let bare = name.split_once('[').map_or(name, |(bare, _)| bare);
        if bare.is_empty() || !bare.chars().all(is_name) || bare.starts_with(|c: char| c.is_ascii_digit()) {
            return Ok(None);
        }
        let bare = bare.to_owned();
        let whole = self.joined(word)?;
        let value = whole.text.split_once('=').map(|(_, value)| value.to_owned()).unwrap_or_default();
        Ok(Some((bare, appends, Value { text: value, origin: whole.origin })))
    }

    /// Returns the value of a variable or parameter. Of several possible values, returns the one in the
    /// combination being analyzed, or else the most likely one. The value of an unset variable is unknown.
    pub(super) fn variable(&mut self, name: &str) -> Value {
        if let Some(values) = self.variables.get(name) {
            let chosen = self.chosen.get(name).and_then(|number| values.get(*number));
            return chosen.or(values.last()).cloned().unwrap_or_default();
        }
        let position = name.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
        match (name, position, &self.positional) {
            ("@" | "*", _, Some(args)) => {
                let mut joined = Value::default();
                for arg in args {
                    joined.push(&Value::known(" "));
                    joined.push(arg);
                }
                joined.text = joined.text.trim_start().to_owned();
                joined
            }
            (_, Some(number), Some(args)) => args.get(number).cloned().unwrap_or_default(),
            ("HOME", ..) => Value::known("~"),
            ("PWD", ..) => Value::known(self.working_dir()),
            ("TMPDIR", ..) => Value::known("/tmp"),
            ("IFS", ..) => Value::known(" \t\n"),
            ("0", ..) => Value::known("sh"),
            ("#" | "?" | "$" | "LINENO", ..) => Value::known("1"),
            _ => Value::unknown(Origin::default()),
        }
    }
}

fn position(tokens: &[BraceToken<'_>], from: usize, target: char) -> Option<usize> {
    let rest = tokens.get(from..)?;
    rest.iter().position(|token| matches!(token, BraceToken::Unquoted(c) if *c == target)).map(|at| from + at)
}

/// Returns the alternatives of the brace expression that begins at `start`, and the position of its closing
/// brace. Returns `None` if there is no brace expression.
fn choices<'a>(tokens: &[BraceToken<'a>], start: usize) -> Option<(Vec<Vec<BraceToken<'a>>>, usize)> {
    let mut depth = 0_usize;
    let mut choices = vec![Vec::new()];
    for (at, token) in tokens.iter().enumerate().skip(start + 1) {
        match token {
            BraceToken::Unquoted('{') => depth += 1,
            BraceToken::Unquoted('}') if depth == 0 => {
                if choices.len() > 1 {
                    return Some((choices, at));
                }
                return range(choices.first()?).map(|choices| (choices, at));
            }
            BraceToken::Unquoted('}') => depth -= 1,
            BraceToken::Unquoted(',') if depth == 0 => {
                choices.push(Vec::new());
                continue;
            }
            _ => {}
        }
        choices.last_mut()?.push(*token);
    }
    None
}

/// Expands a range of letters, for example `a..e`. Returns `None` if the tokens are not such a range.
fn range<'a>(tokens: &[BraceToken<'a>]) -> Option<Vec<Vec<BraceToken<'a>>>> {
    let [
        BraceToken::Unquoted(from),
        BraceToken::Unquoted('.'),
        BraceToken::Unquoted('.'),
        BraceToken::Unquoted(to),
    ] = tokens
    else {
        return None;
    };
    if from.is_ascii_digit() || !from.is_ascii() || !to.is_ascii() {
        return None;
    }
    let (low, high) = if from <= to { (*from, *to) } else { (*to, *from) };
    Some((low..=high).map(|c| vec![BraceToken::Unquoted(c)]).collect())
}

/// Returns true if at least a part of the text is unknown.
pub(super) fn is_partly_unknown(text: &str) -> bool {
    text.contains(UNKNOWN)
}
