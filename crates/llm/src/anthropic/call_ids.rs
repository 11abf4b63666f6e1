//! The ids of tool calls as Anthropic takes them: `[a-zA-Z0-9_-]+`, each once in a conversation.
//!
//! A thread may have begun with another provider, whose ids know neither rule.

use std::borrow::Cow;
use std::collections::HashMap;

/// Names the calls of one conversation, oldest first; the same conversation always gets the same names.
#[derive(Debug, Default)]
pub(super) struct CallIds<'a> {
    uses: HashMap<&'a str, u32>,
}

impl<'a> CallIds<'a> {
    /// The name of a call.
    pub(super) fn of_call(&mut self, id: &'a str) -> Cow<'a, str> {
        let uses = self.uses.entry(id).or_default();
        *uses += 1;
        name(id, *uses)
    }

    /// The name of the call that a result belongs to: the latest of this id.
    pub(super) fn of_result(&self, id: &'a str) -> Cow<'a, str> {
        name(id, self.uses.get(id).copied().unwrap_or(1))
    }
}

fn name(id: &str, uses: u32) -> Cow<'_, str> {
    let is_allowed = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
    if uses == 1 && !id.is_empty() && id.chars().all(is_allowed) {
        return Cow::Borrowed(id);
    }
    let mut name: String =
        id.chars().map(|character| if is_allowed(character) { character } else { '_' }).collect();
    if uses > 1 || name.is_empty() {
        name.push('_');
        name.push_str(&uses.to_string());
    }
    Cow::Owned(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usual_id_stays_as_it_is() {
        let mut ids = CallIds::default();
        assert_eq!(ids.of_call("toolu_01-a"), "toolu_01-a");
        assert_eq!(ids.of_result("toolu_01-a"), "toolu_01-a");
    }

    #[test]
    fn an_id_used_again_gets_another_name() {
        let mut ids = CallIds::default();
        assert_eq!((ids.of_call("call_0"), ids.of_result("call_0")), ("call_0".into(), "call_0".into()));
        assert_eq!((ids.of_call("call_0"), ids.of_result("call_0")), ("call_0_2".into(), "call_0_2".into()));
    }

    #[test]
    fn characters_that_are_not_taken_are_replaced() {
        let mut ids = CallIds::default();
        assert_eq!(ids.of_call("functions.shell:0"), "functions_shell_0");
        assert_eq!(ids.of_call(""), "_1");
    }
}
