//! Tool call ids for Anthropic. An id may contain only the characters `[a-zA-Z0-9_-]` and must be unique
//! within a conversation.
//!
//! The ids in a thread may come from another provider, which does not follow these rules.

use std::borrow::Cow;
use std::collections::HashMap;

/// Assigns Anthropic ids to the tool calls of a conversation, in order. The same conversation always gets the
/// same ids.
#[derive(Debug, Default)]
pub(super) struct CallIds<'a> {
    uses: HashMap<&'a str, u32>,
}

impl<'a> CallIds<'a> {
    /// Returns the Anthropic id for the next tool call, whose original id is `id`.
    pub(super) fn call_id(&mut self, id: &'a str) -> Cow<'a, str> {
        let uses = self.uses.entry(id).or_default();
        *uses += 1;
        anthropic_id(id, *uses)
    }

    /// Returns the Anthropic id for a tool result: the id that was assigned to the latest tool call with the
    /// original id `id`.
    pub(super) fn result_id(&self, id: &'a str) -> Cow<'a, str> {
        anthropic_id(id, self.uses.get(id).copied().unwrap_or(1))
    }
}

fn anthropic_id(id: &str, uses: u32) -> Cow<'_, str> {
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
    fn a_valid_id_is_unchanged() {
        let mut ids = CallIds::default();
        assert_eq!(ids.call_id("toolu_01-a"), "toolu_01-a");
        assert_eq!(ids.result_id("toolu_01-a"), "toolu_01-a");
    }

    #[test]
    fn a_repeated_id_gets_a_suffix() {
        let mut ids = CallIds::default();
        assert_eq!((ids.call_id("call_0"), ids.result_id("call_0")), ("call_0".into(), "call_0".into()));
        assert_eq!((ids.call_id("call_0"), ids.result_id("call_0")), ("call_0_2".into(), "call_0_2".into()));
    }

    #[test]
    fn invalid_characters_are_replaced() {
        let mut ids = CallIds::default();
        assert_eq!(ids.call_id("functions.shell:0"), "functions_shell_0");
        assert_eq!(ids.call_id(""), "_1");
    }
}
