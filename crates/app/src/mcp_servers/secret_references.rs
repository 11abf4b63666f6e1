//! References to secrets in the headers of MCP servers, written as `${NAME}`.

use std::collections::BTreeMap;

use herm_types::FieldError;
use herm_types::mcp::{Header, McpServer};
use herm_types::secret::HostPattern;
use url::Url;

/// Returns a field error for each `${NAME}` in a header if the deployment has no secret `NAME`, or if that
/// secret may not be sent to the host of the MCP server. `secrets` contains the allowed hosts of each secret
/// of the deployment, by name.
pub(crate) fn secret_reference_errors(
    servers: &[McpServer],
    secrets: &BTreeMap<String, Vec<HostPattern>>,
) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, server) in servers.iter().enumerate() {
        for (header, value) in &server.headers {
            let Header::Template(template) = value else { continue };
            let path = format!("mcp_servers[{index}].headers.{header}");
            for name in secret_references(template) {
                let error = match name {
                    Err(text) => Some(format!(
                        "`${{{text}}}` does not contain a valid secret name; use letters, digits and `_`"
                    )),
                    Ok(name) => match secrets.get(name) {
                        None => Some(format!(
                            "`${{{name}}}` refers to a secret that is not in the deployment's `secrets`"
                        )),
                        Some(hosts) if !allows_url(hosts, &server.url) => Some(format!(
                            "the secret `{name}` may not be sent to the host of this MCP server; add the host to the secret's `allowed_hosts`"
                        )),
                        Some(_) => None,
                    },
                };
                errors.extend(error.map(|message| FieldError::new(path.clone(), message)));
            }
        }
    }
    errors
}

/// Returns the name in each `${NAME}` of a header template. An invalid name is returned as `Err`.
fn secret_references(template: &str) -> Vec<Result<&str, &str>> {
    let opened = template.split("${").skip(1);
    opened
        .map(|rest| match rest.split_once('}') {
            Some((name, _)) if is_env_var_name(name) => Ok(name),
            Some((text, _)) => Err(text),
            None => Err(rest),
        })
        .collect()
}

/// Returns true if the string is a valid name of an environment variable: up to 128 ASCII letters, digits and
/// `_`, not beginning with a digit.
pub fn is_env_var_name(text: &str) -> bool {
    text.len() <= 128
        && text.bytes().next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Returns true if a secret with these allowed hosts may be sent to this URL.
fn allows_url(allowed_hosts: &[HostPattern], url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { return false };
    allowed_hosts.iter().any(|allowed| allowed.matches(host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_references_are_found_in_braces() {
        assert_eq!(
            secret_references("Bearer ${TOKEN}, ${a b} ${open"),
            [Ok("TOKEN"), Err("a b"), Err("open")]
        );
        assert_eq!(secret_references("none"), [] as [Result<&str, &str>; 0]);
    }
}
