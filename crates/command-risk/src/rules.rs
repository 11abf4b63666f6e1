//! The risk rules. Each rule checks one invocation of a program, with its arguments.

mod delete;
mod external;
mod network;
mod system;

use super::analyzer::{Analysis, Value};
use super::syntax::{RedirectKind, Script};
use super::{Risk, files, program};

/// An invocation of a program that is checked against the risk rules.
pub(super) struct Invocation<'a> {
    /// The name of the program, without directories.
    pub(super) name: &'a str,
    pub(super) args: &'a [Value],
    pub(super) working_dir: &'a str,
    pub(super) input: &'a Value,
}

/// A risk rule. If it applies, it returns a description of what the invocation would do.
type Rule = fn(&Invocation<'_>) -> Option<String>;

const RULES: &[(&str, Rule)] = &[
    ("recursive_delete", delete::recursive),
    ("recursive_delete", delete::find_delete),
    ("recursive_delete", delete::rsync_delete),
    ("overwrite_device", system::device),
    ("recursive_permissions", system::permissions),
    ("kill_everything", system::kill),
    ("reverse_shell", network::reverse_shell),
    ("upload_secrets", network::upload),
    ("http_delete", network::http_delete),
    ("rewrite_history", external::push),
    ("discard_changes", external::discard),
    ("drop_data", external::drop_data),
    ("destroy_resources", external::destroy),
    ("publish", external::publish),
];

/// Checks an invocation against every risk rule. Returns a risk for the first rule that applies.
pub(super) fn check(invocation: &Invocation<'_>) -> Analysis<()> {
    for (rule, check) in RULES {
        if let Some(effect) = check(invocation) {
            return Err(Risk::new(
                rule,
                &effect,
                &program::command_line(&Value::known(invocation.name), invocation.args),
            ));
        }
    }
    Ok(())
}

/// Returns the names of all programs that the tables of the risk rules mention.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    external::names()
}

/// Returns true if a risk rule checks the standard input of this program.
pub(super) fn reads_input(name: &str) -> bool {
    external::DATABASE_CLIENTS.contains(&name)
}

/// Checks the target of a redirection. Returns a risk if it is a device or a network connection.
pub(super) fn redirect(target: &Value, kind: &RedirectKind) -> Analysis<()> {
    let path = target.text.as_str();
    if network::is_socket(path) {
        return Err(Risk::new("reverse_shell", "it connects a program to another machine", path));
    }
    if !matches!(kind, RedirectKind::In | RedirectKind::HereString) && system::is_device(path) {
        return Err(Risk::new("overwrite_device", "it overwrites a device", path));
    }
    Ok(())
}

/// Returns a risk if the function is a fork bomb, which starts copies of itself without limit.
pub(super) fn fork_bomb(name: &str, body: &Script) -> Analysis<()> {
    if system::is_fork_bomb(name, body) {
        return Err(Risk::new("fork_bomb", "it starts copies of itself without limit", &format!("{name}()")));
    }
    Ok(())
}

impl Invocation<'_> {
    /// Returns the texts of all arguments.
    fn texts(&self) -> impl Iterator<Item = &str> + Clone {
        self.args.iter().map(|arg| arg.text.as_str())
    }

    fn has(&self, words: &[&str]) -> bool {
        self.texts().any(|arg| words.contains(&arg))
    }

    /// Returns true if one of these short options is set, alone as in `-r` or in a group as in `-rf`.
    fn has_short_option(&self, letters: &[char]) -> bool {
        let is_option =
            |arg: &str| letters.iter().any(|letter| super::wrappers::has_short_option(arg, *letter));
        self.texts().take_while(|arg| *arg != "--").any(is_option)
    }

    /// Returns the operands, which are the arguments that do not begin with `-`.
    fn operands(&self) -> impl Iterator<Item = &str> {
        let end = self.texts().position(|arg| arg == "--").unwrap_or(self.args.len());
        let is_operand = move |(at, arg): &(usize, &str)| *at > end || !arg.starts_with('-');
        self.texts().enumerate().filter(is_operand).map(|(_, arg)| arg)
    }

    /// Returns true if the operands include all `words` of a subcommand, in this order. Other operands may
    /// stand between them.
    fn has_subcommand(&self, words: &[&str]) -> bool {
        let mut operands = self.operands();
        words.iter().all(|word| operands.any(|operand| operand == *word))
    }

    /// Returns the description of the first operand that is a broad path, for example `/` or the workspace.
    fn broad(&self) -> Option<&'static str> {
        self.operands().find_map(|path| self.is_broad(path))
    }

    fn is_broad(&self, path: &str) -> Option<&'static str> {
        files::broad_from(self.working_dir, path)
    }
}
