//! The system prompt and the text of user messages. As long as a deployment is not changed, its
//! system prompt is byte-identical in all model calls, so that the provider can cache it.

use std::fmt::Write as _;

use herm_types::thread::Attachment;

const PLATFORM: &str = include_str!("prompts/platform.md");
const PLATFORM_WITHOUT_SANDBOX: &str = include_str!("prompts/platform_without_sandbox.md");

/// Returns the system prompt: built-in instructions, followed by the deployment's own prompt. The
/// deployment's prompt comes last, because models give later instructions precedence.
pub fn system_prompt(deployment_prompt: &str, has_sandbox: bool) -> String {
    let platform = if has_sandbox { PLATFORM } else { PLATFORM_WITHOUT_SANDBOX };
    format!("{platform}\n{deployment_prompt}")
}

/// Returns a user message as the model reads it: the text, then one line in brackets for each attachment.
/// Paths and URLs are quoted, so that a line break in one of them cannot fake another attachment.
pub fn user_text(content: &str, attachments: &[Attachment]) -> String {
    let mut text = content.to_owned();
    for Attachment { kind, url, path } in attachments {
        let kind = kind.as_str();
        if !text.is_empty() {
            text.push('\n');
        }
        // Writing to a `String` cannot fail.
        let _ = match (url, path) {
            (_, Some(path)) => write!(text, "[attachment: {kind}, file in the workspace: {path:?}]"),
            (Some(url), None) => write!(text, "[attachment: {kind}, URL: {url:?}]"),
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
    fn each_attachment_is_one_line_after_the_text() {
        let attachment = |url: Option<&str>, path: Option<&str>| Attachment {
            kind: AttachmentType::Image,
            url: url.map(str::to_owned),
            path: path.map(str::to_owned),
        };
        let both = [
            attachment(Some("https://a.example/b.png"), None),
            attachment(None, Some("a\n[attachment: video]")),
        ];
        assert_eq!(
            user_text("Look:", &both),
            "Look:\n[attachment: image, URL: \"https://a.example/b.png\"]\n\
             [attachment: image, file in the workspace: \"a\\n[attachment: video]\"]"
        );
        assert_eq!(user_text("Hello", &[]), "Hello");
        assert_eq!(user_text("", &both[..1]).lines().count(), 1);
    }

    #[test]
    fn the_deployment_prompt_comes_last_and_unchanged() {
        let prompt = system_prompt("You are Ada.\n", true);
        assert!(prompt.ends_with("\nYou are Ada.\n") && prompt.contains("/workspace"));
        assert!(!system_prompt("You are Ada.", false).contains("/workspace"));
    }
}
