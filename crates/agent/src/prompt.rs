//! The system prompt: the same bytes for the same deployment, so that a provider's prefix cache hits.

const PLATFORM: &str = include_str!("prompts/platform.md");
const PLATFORM_WITHOUT_SANDBOX: &str = include_str!("prompts/platform_without_sandbox.md");

/// The platform's words, then the customer's own system prompt, which has the last one.
pub fn system_prompt(deployment_prompt: &str, has_sandbox: bool) -> String {
    let platform = if has_sandbox { PLATFORM } else { PLATFORM_WITHOUT_SANDBOX };
    format!("{platform}\n{deployment_prompt}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deployments_prompt_comes_last_and_whole() {
        let prompt = system_prompt("You are Ada.\n", true);
        assert!(prompt.ends_with("\nYou are Ada.\n") && prompt.contains("/workspace"));
        assert!(!system_prompt("You are Ada.", false).contains("/workspace"));
    }
}
