//! The values of `${…}`.

use super::expand::is_partly_unknown;
use super::glob;
use super::judge::{Judge, Text, Verdict};
use super::syntax::{Form, Parameter, Word};

/// Characters of a value up to which a pattern is taken off its ends.
const MAX_STRIPPED_CHARS: usize = 1024;

impl Judge {
    pub(super) fn parameter(&mut self, parameter: &Parameter) -> Verdict<Text> {
        let mut base = self.variable(&parameter.name);
        if let Some(number) = parameter.index.as_deref().and_then(|index| index.parse::<usize>().ok())
            && !base.is_unknown()
        {
            base.text = base.text.split_whitespace().nth(number).unwrap_or_default().to_owned();
        }
        let is_unset = base.text.is_empty() || base.is_unknown();
        Ok(match &parameter.form {
            Form::Plain => base,
            Form::Default(word) => {
                let default = self.joined(word)?;
                if is_unset { default } else { base }
            }
            Form::Assign(word) => {
                let default = self.joined(word)?;
                if is_unset {
                    self.assign(&parameter.name, default.clone());
                    return Ok(default);
                }
                base
            }
            Form::Alternative(word) => {
                let other = self.joined(word)?;
                if base.is_unknown() {
                    // This word or none.
                    return Ok(Text::unknown(other.origin));
                }
                if base.text.is_empty() { base } else { other }
            }
            Form::Required(word) => {
                self.joined(word)?;
                base
            }
            Form::StripPrefix { pattern, longest } => self.strip(base, pattern, *longest, true)?,
            Form::StripSuffix { pattern, longest } => self.strip(base, pattern, *longest, false)?,
            Form::Replace { from, to } => {
                let (from, to) = (self.joined(from)?, self.joined(to)?);
                if from.text.is_empty() || glob::is_pattern(&from.text) {
                    return Ok(Text::unknown(base.origin));
                }
                self.budget.charge(base.text.len().saturating_mul(to.text.len() + 1))?;
                let text = base.text.replace(&from.text, &to.text);
                Text { text, origin: base.origin.and(to.origin) }
            }
            Form::Slice(word) => {
                let slice = self.joined(word)?;
                sliced(&base, &slice.text)
            }
            Form::Upper => Text { text: base.text.to_uppercase(), origin: base.origin },
            Form::Lower => Text { text: base.text.to_lowercase(), origin: base.origin },
            Form::Indirect if is_unset => base,
            Form::Indirect => self.variable(&base.text),
            Form::Length => Text::known("1"),
            Form::Other(word) => {
                self.joined(word)?;
                Text::unknown(base.origin)
            }
        })
    }

    fn strip(&mut self, base: Text, pattern: &Word, longest: bool, prefix: bool) -> Verdict<Text> {
        let pattern = self.joined(pattern)?.text;
        let text = base.text.as_str();
        if base.is_unknown() || is_partly_unknown(&pattern) || text.len() > MAX_STRIPPED_CHARS {
            return Ok(Text::unknown(base.origin));
        }
        let mut ends: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        if longest == prefix {
            ends.reverse();
        }
        self.budget.charge(text.len().saturating_mul(text.len() + pattern.len() + 1))?;
        for end in ends {
            let (Some(before), Some(after)) = (text.get(..end), text.get(end..)) else { continue };
            let (taken, rest) = if prefix { (before, after) } else { (after, before) };
            if glob::matches(&pattern, taken) {
                return Ok(Text { text: rest.to_owned(), origin: base.origin });
            }
        }
        Ok(base)
    }
}

/// `${x:offset}` and `${x:offset:length}`.
fn sliced(base: &Text, slice: &str) -> Text {
    let (offset, length) = slice.split_once(':').map_or((slice, None), |(at, length)| (at, Some(length)));
    let count = base.text.chars().count();
    let number = |text: &str| text.trim().parse::<isize>().ok();
    let from_end = |number: isize| match usize::try_from(number) {
        Ok(number) => number.min(count),
        Err(_) => count.saturating_sub(number.unsigned_abs()),
    };
    let (Some(start), Some(length)) = (number(offset), length.map_or(Some(isize::MAX), number)) else {
        return Text::unknown(base.origin);
    };
    let start = from_end(start);
    let length = if length < 0 { from_end(length).saturating_sub(start) } else { length.unsigned_abs() };
    Text { text: base.text.chars().skip(start).take(length).collect(), origin: base.origin }
}
