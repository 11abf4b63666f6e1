//! Static analysis that decides if a shell command needs a person's approval before it runs.
//!
//! The analyzer interprets the command as a shell would: quotes, expansions, pipes, and scripts within
//! scripts. It checks every program that the command would start against a list of rules. The security
//! boundary is the sandbox, not this analysis. The analysis only prevents an agent from doing something
//! irreversible by accident. Still, it must recognize a dangerous command even if the command is written in
//! an unusual or obfuscated way, and it must not report a command that only mentions something dangerous.
//!
//! If shells differ in how they interpret a command, or a value is unknown, the analyzer considers the
//! possible meanings and reports the command if one of them is dangerous. A command that is nested too
//! deeply, is too long, or takes too much work to analyze is itself reported, with the rule `unreadable`.

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

pub use fold::is_invisible;

/// The maximum length of the command that a risk's reason quotes, in characters. Longer commands are
/// truncated.
const MAX_COMMAND_CHARS: usize = 120;

/// A reason why a command needs an approval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Risk {
    /// The stable name of the risk rule in snake case, for example `recursive_delete`.
    pub rule: &'static str,
    /// A clause that explains the danger to a person, for example "it deletes everything in the workspace (rm
    /// -rf /workspace)".
    pub reason: String,
}

impl Risk {
    /// Creates a risk. `effect` is a clause that says what makes the command dangerous. `command` is the
    /// command after shell expansion, or an empty string to leave it out of the reason.
    fn new(rule: &'static str, effect: &str, command: &str) -> Self {
        let command = command.trim();
        let reason =
            if command.is_empty() { effect.to_owned() } else { format!("{effect} ({})", sanitize(command)) };
        Self { rule, reason }
    }
}

/// Analyzes a command that will run with `sh -c` in `/workspace`. Returns the first risk, or `None` if no
/// risk rule applies. Never panics, and its running time is limited.
pub fn assess(command: &str) -> Option<Risk> {
    if command.len() > MAX_COMMAND_BYTES {
        return Some(budget::unreadable(&format!(
            "it is longer than {MAX_COMMAND_BYTES} bytes and cannot be analyzed"
        )));
    }
    let risk = Analyzer::default().analyze(command);
    // The second pass analyzes the command with lookalike characters replaced by the ASCII characters that
    // they resemble. The first pass analyzes the original command, because the replacement could change its
    // meaning and hide a danger.
    risk.or_else(|| Analyzer::default().analyze(&fold::fold(command)?))
}

/// Makes a command safe to show on one line: replaces line breaks and control characters, and truncates the
/// command to [`MAX_COMMAND_CHARS`].
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
            c if c.is_control() || is_invisible(c) => text.push('\u{fffd}'),
            c => text.push(c),
        }
    }
    text
}
