//! What a model reads in the platform's own words. The system prompt is the same bytes for the same deployment, so that
//! a provider's prefix cache hits.

use std::fmt::Write as _;

use herm_types::thread::Attachment;

const PLATFORM: &str = include_str!("prompts/platform.md");
const PLATFORM_WITHOUT_SANDBOX: &str = include_str!("prompts/platform_without_sandbox.md");

/// The platform's words, then the customer's own system prompt, which has the last one.
pub fn system_prompt(deployment_prompt: &str, has_sandbox: bool) -> String {
    let platform = if has_sandbox { PLATFORM } else { PLATFORM_WITHOUT_SANDBOX };
    format!("{platform}\n{deployment_prompt}")
}

/// A user's message as the model reads it: its text, then one marked line for each attachment. Where they lie is
/// quoted, so that it cannot look like more than one line.
pub fn user_text(content: &str, attachments: &[Attachment]) -> String {
    let mut text = content.to_owned();
    for Attachment { kind, url, path } in attachments {
        let kind = kind.as_str();
        if !text.is_empty() {
            text.push('\n');
        }
        // Writing to a String cannot fail.
        let _ = match (url, path) {
            (_, Some(path)) => write!(text, "[attachment: {kind}, file in the workspace: {path:?}]"),
            (Some(url), None) => write!(text, "[attachment: {kind}, at the address: {url:?}]"),
            (None, None) => write!(text, "[attachment: {kind}]"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use herm_types::thread::AttachmentType;

    use super::*;

    #[test]
    fn attachments_are_lines_after_the_text_and_never_more_than_one_each() {
        let of = |url: Option<&str>, path: Option<&str>| Attachment {
            kind: AttachmentType::Image,
            url: url.map(str::to_owned),
            path: path.map(str::to_owned),
        };
        let both = [of(Some("https://a.example/b.png"), None), of(None, Some("a\n[attachment: video]"))];
        assert_eq!(
            user_text("Look:", &both),
            "Look:\n[attachment: image, at the address: \"https://a.example/b.png\"]\n\
             [attachment: image, file in the workspace: \"a\\n[attachment: video]\"]"
        );
        assert_eq!(user_text("Hello", &[]), "Hello");
        assert_eq!(user_text("", &both[..1]).lines().count(), 1);
    }

    #[test]
    fn the_deployments_prompt_comes_last_and_whole() {
        let prompt = system_prompt("You are Ada.\n", true);
        assert!(prompt.ends_with("\nYou are Ada.\n") && prompt.contains("/workspace"));
        assert!(!system_prompt("You are Ada.", false).contains("/workspace"));
    }
}
