//! Whether a shell command should be put before a person before it is run.
//!
//! The command is read as a shell would read it: quotes, expansions, pipes, scripts inside of scripts. What it
//! comes to is then held against a list of rules. This is no boundary of security (the sandbox is); it keeps an
//! agent from doing in passing what cannot be undone. Hence two aims: writing a command oddly must not hide
//! it, and a command that only mentions a danger is none.
//!
//! Where shells differ, or a value cannot be known, whatever could be meant is judged. What nests too deeply,
//! is too long or takes too much work to be judged is itself a danger: `unreadable`.

mod budget;
mod code;
mod escapes;
mod expand;
mod files;
mod fold;
mod glob;
mod judge;
mod output;
mod parameter;
mod parse;
mod program;
mod rules;
mod shell;
mod sql;
mod syntax;
mod words;
mod wrappers;

#[cfg(test)]
mod tests;

use budget::MAX_COMMAND_BYTES;
use judge::Judge;

/// Characters of a command that a reason shows; the rest is cut off.
const MAX_SHOWN_CHARS: usize = 120;

/// Why a command should not be run unasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Danger {
    /// The stable name of the rule, in snake case.
    pub rule: &'static str,
    /// A clause for a person: "it deletes everything in the workspace (rm -rf /workspace)".
    pub reason: String,
}

impl Danger {
    /// A danger, with the command that it was found in: its words, as they came out.
    fn new(rule: &'static str, what: &str, words: &str) -> Self {
        let words = words.trim();
        let reason = if words.is_empty() { what.to_owned() } else { format!("{what} ({})", shown(words)) };
        Self { rule, reason }
    }
}

/// Judges a command that is to be run with `sh -c` in `/workspace`. Never panics; its work is bounded.
pub fn judge(command: &str) -> Option<Danger> {
    if command.len() > MAX_COMMAND_BYTES {
        return Some(budget::unreadable("it is too long to be judged"));
    }
    let verdict = Judge::default().judge(command);
    // Letters that look like others are tried as those, in a second reading: folding them in the only one
    // would let them hide something, a quote for instance.
    verdict.or_else(|| Judge::default().judge(&fold::fold(command)?))
}

/// Words as a person may see them: on one line, without control characters, cut off.
fn shown(words: &str) -> String {
    let mut text = String::new();
    for (count, c) in words.chars().enumerate() {
        if count == MAX_SHOWN_CHARS {
            text.push('…');
            break;
        }
        match c {
            judge::UNKNOWN => text.push('…'),
            c if c.is_whitespace() => text.push(' '),
            c if c.is_control() || fold::is_invisible(c) => text.push('\u{fffd}'),
            c => text.push(c),
        }
    }
    text
}
