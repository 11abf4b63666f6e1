//! Static analysis that decides if a shell command needs a person's approval before it runs.
//!
//! The analyzer interprets the command like a shell would: quotes, expansions, pipes, and scripts within
//! scripts. It checks every program that the command would start against a list of rules. This is not a
//! security boundary, because the sandbox is. The analysis prevents an agent from doing something
//! irreversible by accident. Two requirements follow: an obfuscated dangerous command must be recognized, and
//! a command that only mentions something dangerous must not be reported.
//!
//! If shells interpret a command differently, or a value is unknown, the analyzer checks every possible
//! meaning. A command that nests too deeply, is too long, or takes too much work to analyze is itself
//! reported, with the rule `unreadable`.

mod analyzer;
mod budget;
mod code;
mod escapes;
mod expand;
mod files;
mod fold;
mod glob;
mod output;
mod parameter;
mod parse;
mod parse_word;
mod program;
mod rules;
mod shell;
mod sql;
mod syntax;
mod wrappers;

#[cfg(test)]
mod tests;

use analyzer::Analyzer;
use budget::MAX_COMMAND_BYTES;

/// The maximum length of the command that a finding's reason quotes, in characters. Longer commands are
/// truncated.
const MAX_COMMAND_CHARS: usize = 120;

/// A reason why a command needs an approval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The stable name of the danger rule in snake case, for example `recursive_delete`.
    pub rule: &'static str,
    /// A clause that explains the danger to a person, for example "it deletes everything in the workspace (rm
    /// -rf /workspace)".
    pub reason: String,
}

impl Finding {
    /// Creates a finding. `command` is the expanded command that the rule applies to, or an empty string if
    /// there is none.
    fn new(rule: &'static str, effect: &str, command: &str) -> Self {
        let command = command.trim();
        let reason =
            if command.is_empty() { effect.to_owned() } else { format!("{effect} ({})", sanitize(command)) };
        Self { rule, reason }
    }
}

/// Analyzes a command that will run with `sh -c` in `/workspace`. Returns the first finding, or `None` if no
/// danger rule applies. Never panics, and its running time is limited.
pub fn analyze(command: &str) -> Option<Finding> {
    if command.len() > MAX_COMMAND_BYTES {
        return Some(budget::unreadable("it is too long to be analyzed"));
    }
    let finding = Analyzer::default().analyze(command);
    // The second pass replaces characters that look like ASCII characters. The first pass analyzes the
    // original command, because the replacement could change its meaning and hide a danger.
    finding.or_else(|| Analyzer::default().analyze(&fold::fold(command)?))
}

/// Replaces line breaks and control characters, and truncates the command to [`MAX_COMMAND_CHARS`].
fn sanitize(command: &str) -> String {
    let mut text = String::new();
    for (count, c) in command.chars().enumerate() {
        if count == MAX_COMMAND_CHARS {
            text.push('…');
            break;
        }
        match c {
            analyzer::UNKNOWN => text.push('…'),
            c if c.is_whitespace() => text.push(' '),
            c if c.is_control() || fold::is_invisible(c) => text.push('\u{fffd}'),
            c => text.push(c),
        }
    }
    text
}
