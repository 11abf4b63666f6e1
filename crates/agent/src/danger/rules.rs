//! What is dangerous: each rule looks at one program with its arguments.

mod delete;
mod network;
mod outside;
mod system;

use super::judge::{Text, Verdict};
use super::syntax::{RedirectKind, Script};
use super::{Danger, files, program};

/// A program that is about to be run.
pub(super) struct Act<'a> {
    /// Its name, without directories.
    pub(super) name: &'a str,
    pub(super) args: &'a [Text],
    pub(super) here: &'a str,
    pub(super) input: &'a Text,
}

/// A rule: what such a program would do, if it is one of its kind.
type Rule = fn(&Act<'_>) -> Option<String>;

const RULES: &[(&str, Rule)] = &[
    ("recursive_delete", delete::recursive),
    ("recursive_delete", delete::found),
    ("recursive_delete", delete::mirrored),
    ("overwrite_device", system::device),
    ("recursive_permissions", system::permissions),
    ("kill_everything", system::kill),
    ("reverse_shell", network::reverse_shell),
    ("upload_secrets", network::upload),
    ("http_delete", network::http_delete),
    ("rewrite_history", outside::push),
    ("discard_changes", outside::discard),
    ("drop_data", outside::drop_data),
    ("destroy_resources", outside::destroy),
    ("publish", outside::publish),
];

/// Holds a program against every rule.
pub(super) fn judge(act: &Act<'_>) -> Verdict<()> {
    for (rule, breaks) in RULES {
        if let Some(what) = breaks(act) {
            return Err(Danger::new(rule, &what, &program::shown(&Text::known(act.name), act.args)));
        }
    }
    Ok(())
}

/// Programs that rules know by tables.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    outside::names()
}

/// Whether a rule looks at what a program reads.
pub(super) fn reads_input(name: &str) -> bool {
    outside::DATABASES.contains(&name)
}

/// A redirection: to a device, or to another machine.
pub(super) fn redirect(target: &Text, kind: &RedirectKind) -> Verdict<()> {
    let path = target.text.as_str();
    if network::is_socket(path) {
        return Err(Danger::new("reverse_shell", "it connects a program with another machine", path));
    }
    if !matches!(kind, RedirectKind::In | RedirectKind::HereString) && system::is_device(path) {
        return Err(Danger::new("overwrite_device", "it overwrites a device", path));
    }
    Ok(())
}

/// A function that starts itself more than once, or in the background.
pub(super) fn fork_bomb(name: &str, body: &Script) -> Verdict<()> {
    if system::multiplies(name, body) {
        return Err(Danger::new("fork_bomb", "it starts copies of itself without end", &format!("{name}()")));
    }
    Ok(())
}

impl Act<'_> {
    /// The arguments as text.
    fn texts(&self) -> impl Iterator<Item = &str> + Clone {
        self.args.iter().map(|arg| arg.text.as_str())
    }

    fn has(&self, words: &[&str]) -> bool {
        self.texts().any(|arg| words.contains(&arg))
    }

    /// Whether a one-letter option is given, alone or among others.
    fn has_letter(&self, letters: &[char]) -> bool {
        let is_option = |arg: &str| letters.iter().any(|letter| super::wrappers::is_cluster(arg, *letter));
        self.texts().take_while(|arg| *arg != "--").any(is_option)
    }

    /// What is no option.
    fn operands(&self) -> impl Iterator<Item = &str> {
        let end = self.texts().position(|arg| arg == "--").unwrap_or(self.args.len());
        let is_operand = move |(at, arg): &(usize, &str)| *at > end || !arg.starts_with('-');
        self.texts().enumerate().filter(is_operand).map(|(_, arg)| arg)
    }

    /// The words that say what a tool of many commands is to do, in their order.
    fn begins(&self, words: &[&str]) -> bool {
        let mut operands = self.operands();
        words.iter().all(|word| operands.any(|operand| operand == *word))
    }

    /// What the first broad argument names.
    fn broad(&self) -> Option<&'static str> {
        self.operands().find_map(|path| self.is_broad(path))
    }

    fn is_broad(&self, path: &str) -> Option<&'static str> {
        files::broad_from(self.here, path)
    }
}
