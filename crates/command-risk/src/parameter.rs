//! Parameter expansion: evaluates `${…}`.

use super::analyzer::{Analysis, Analyzer, Value};
use super::expand::is_partly_unknown;
use super::glob;
use super::syntax::{Operation, Parameter, Word};

/// The maximum length, in bytes, of a value from which the analyzer removes a prefix or suffix, as in
/// `${x#…}` and `${x%…}`. For a longer value, the result is unknown.
const MAX_STRIPPED_BYTES: usize = 1024;

impl Analyzer {
    pub(super) fn parameter(&mut self, parameter: &Parameter) -> Analysis<Value> {
        let mut base = self.variable(&parameter.name);
        if let Some(number) = parameter.index.as_deref().and_then(|index| index.parse::<usize>().ok())
            && !base.is_unknown()
        {
            base.text = base.text.split_whitespace().nth(number).unwrap_or_default().to_owned();
        }
        // `TMPDIR` is usually `/tmp`, but a sandbox may not set it.
        let is_unset = base.text.is_empty() || base.is_unknown() || parameter.name == "TMPDIR";
        Ok(match &parameter.operation {
            Operation::Plain => base,
            Operation::Default(word) => {
                let default = self.joined(word)?;
                if is_unset { default } else { base }
            }
            Operation::Assign(word) => {
                let default = self.joined(word)?;
                if is_unset {
                    self.assign(&parameter.name, default.clone());
                    return Ok(default);
                }
                base
            }
            Operation::Alternative(word) => {
                let alternative = self.joined(word)?;
                if base.is_unknown() {
                    // `${x:+word}` results in `word` if `x` has a value, and is empty otherwise. The analyzer
                    // does not know if `x` has a value, so the result is unknown.
                    return Ok(Value::unknown(alternative.origin));
                }
                if base.text.is_empty() { base } else { alternative }
            }
            Operation::Required(word) => {
                self.joined(word)?;
                base
            }
            Operation::StripPrefix { pattern, longest } => self.strip(base, pattern, *longest, true)?,
            Operation::StripSuffix { pattern, longest } => self.strip(base, pattern, *longest, false)?,
            Operation::Replace { from, to } => {
                let (from, to) = (self.joined(from)?, self.joined(to)?);
                if from.text.is_empty() || glob::is_pattern(&from.text) {
                    return Ok(Value::unknown(base.origin));
                }
                self.budget.charge(base.text.len().saturating_mul(to.text.len() + 1))?;
                let text = base.text.replace(&from.text, &to.text);
                Value { text, origin: base.origin.union(to.origin) }
            }
            Operation::Slice(word) => {
                let range = self.joined(word)?;
                slice(&base, &range.text)
            }
            Operation::Upper => Value { text: base.text.to_uppercase(), origin: base.origin },
            Operation::Lower => Value { text: base.text.to_lowercase(), origin: base.origin },
            Operation::Indirect if is_unset => base,
            Operation::Indirect => self.variable(&base.text),
            Operation::Length => Value::known("1"),
            Operation::Other(word) => {
                self.joined(word)?;
                Value::unknown(base.origin)
            }
        })
    }

    fn strip(&mut self, base: Value, pattern: &Word, longest: bool, prefix: bool) -> Analysis<Value> {
        let pattern = self.joined(pattern)?.text;
        let text = base.text.as_str();
        if base.is_unknown() || is_partly_unknown(&pattern) || text.len() > MAX_STRIPPED_BYTES {
            return Ok(Value::unknown(base.origin));
        }
        let mut ends: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        if longest == prefix {
            ends.reverse();
        }
        self.budget.charge(text.len().saturating_mul(text.len() + pattern.len() + 1))?;
        for end in ends {
            let (Some(before), Some(after)) = (text.get(..end), text.get(end..)) else { continue };
            let (removed, rest) = if prefix { (before, after) } else { (after, before) };
            if glob::matches(&pattern, removed) {
                return Ok(Value { text: rest.to_owned(), origin: base.origin });
            }
        }
        Ok(base)
    }
}

/// Evaluates the substring expansions `${x:offset}` and `${x:offset:length}`.
fn slice(base: &Value, range: &str) -> Value {
    let (offset, length) = range.split_once(':').map_or((range, None), |(at, length)| (at, Some(length)));
    let count = base.text.chars().count();
    let number = |text: &str| text.trim().parse::<isize>().ok();
    let from_end = |number: isize| match usize::try_from(number) {
        Ok(number) => number.min(count),
        Err(_) => count.saturating_sub(number.unsigned_abs()),
    };
    let (Some(start), Some(length)) = (number(offset), length.map_or(Some(isize::MAX), number)) else {
        return Value::unknown(base.origin);
    };
    let start = from_end(start);
    let length = if length < 0 { from_end(length).saturating_sub(start) } else { length.unsigned_abs() };
    Value { text: base.text.chars().skip(start).take(length).collect(), origin: base.origin }
}
