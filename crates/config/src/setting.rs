//! The list of settings: each one's variable, its key in the file, its flag.
//!
//! A setting that is not here does not exist; the reference page is tested against this list.

use std::collections::BTreeSet;

/// One setting. The value's type and default are the section's business.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) variable: &'static str,
    pub(crate) key: &'static str,
    pub(crate) flag: Option<&'static str>,
}

const fn setting(variable: &'static str, key: &'static str) -> Setting {
    Setting { variable, key, flag: None }
}

const fn flagged(variable: &'static str, key: &'static str, flag: &'static str) -> Setting {
    Setting { variable, key, flag: Some(flag) }
}

pub(crate) static LISTEN: Setting = flagged("HERM_LISTEN", "listen", "--listen");
pub(crate) static DATA_DIR: Setting = flagged("HERM_DATA_DIR", "data_dir", "--data-dir");
pub(crate) static DATABASE_URL: Setting = flagged("HERM_DATABASE_URL", "database_url", "--database-url");
pub(crate) static PUBLIC_URL: Setting = setting("HERM_PUBLIC_URL", "public_url");
pub(crate) static BOOTSTRAP_KEY: Setting = setting("HERM_BOOTSTRAP_KEY", "bootstrap_key");
pub(crate) static MASTER_KEY: Setting = setting("HERM_MASTER_KEY", "master_key");
pub(crate) static DEFAULT_MODEL: Setting = setting("HERM_DEFAULT_MODEL", "default_model");
pub(crate) static SANDBOX: Setting = setting("HERM_SANDBOX", "sandbox");
pub(crate) static DOCKER_HOST: Setting = setting("HERM_DOCKER_HOST", "docker_host");
pub(crate) static SANDBOX_IMAGE: Setting = setting("HERM_SANDBOX_IMAGE", "sandbox_image");
pub(crate) static ALLOW_PRIVATE_URLS: Setting = setting("HERM_ALLOW_PRIVATE_URLS", "allow_private_urls");
pub(crate) static ALLOW_PRIVATE_EGRESS: Setting =
    setting("HERM_ALLOW_PRIVATE_EGRESS", "allow_private_egress");
pub(crate) static EGRESS_DEFAULT: Setting = setting("HERM_EGRESS_DEFAULT", "egress_default");
pub(crate) static RATE_LIMIT: Setting = setting("HERM_RATE_LIMIT", "rate_limit");
pub(crate) static CORS_ORIGINS: Setting = setting("HERM_CORS_ORIGINS", "cors_origins");
pub(crate) static MAX_JSON_BYTES: Setting = setting("HERM_MAX_JSON_BYTES", "max_json_bytes");
pub(crate) static METRICS_LISTEN: Setting = setting("HERM_METRICS_LISTEN", "metrics_listen");
pub(crate) static METERING: Setting = setting("HERM_METERING", "metering");
pub(crate) static MAX_FILE_BYTES: Setting = setting("HERM_MAX_FILE_BYTES", "max_file_bytes");
pub(crate) static EVENT_RETENTION_DAYS: Setting =
    setting("HERM_EVENT_RETENTION_DAYS", "event_retention_days");
pub(crate) static MODEL_FIRST_BYTE_S: Setting = setting("HERM_MODEL_FIRST_BYTE_S", "model_first_byte_s");
pub(crate) static MODEL_SILENCE_S: Setting = setting("HERM_MODEL_SILENCE_S", "model_silence_s");
pub(crate) static OBSERVE_TOKENS: Setting = setting("HERM_MEMORY_OBSERVE_TOKENS", "memory_observe_tokens");
pub(crate) static OBSERVE_IDLE_S: Setting = setting("HERM_MEMORY_OBSERVE_IDLE_S", "memory_observe_idle_s");
pub(crate) static REFLECT_TOKENS: Setting = setting("HERM_MEMORY_REFLECT_TOKENS", "memory_reflect_tokens");
pub(crate) static DREAM_IDLE_S: Setting = setting("HERM_DREAM_IDLE_S", "dream_idle_s");
pub(crate) static COMPACT_TOKENS: Setting = setting("HERM_CONTEXT_COMPACT_TOKENS", "context_compact_tokens");
pub(crate) static LOG: Setting = setting("HERM_LOG", "log");
pub(crate) static LOG_FORMAT: Setting = setting("HERM_LOG_FORMAT", "log_format");
pub(crate) static OTLP_ENDPOINT: Setting = setting("OTEL_EXPORTER_OTLP_ENDPOINT", "otlp_endpoint");

pub(crate) static SETTINGS: [&Setting; 30] = [
    &LISTEN,
    &DATA_DIR,
    &DATABASE_URL,
    &PUBLIC_URL,
    &BOOTSTRAP_KEY,
    &MASTER_KEY,
    &DEFAULT_MODEL,
    &MODEL_FIRST_BYTE_S,
    &MODEL_SILENCE_S,
    &SANDBOX,
    &DOCKER_HOST,
    &SANDBOX_IMAGE,
    &ALLOW_PRIVATE_URLS,
    &ALLOW_PRIVATE_EGRESS,
    &EGRESS_DEFAULT,
    &RATE_LIMIT,
    &CORS_ORIGINS,
    &MAX_JSON_BYTES,
    &METRICS_LISTEN,
    &METERING,
    &MAX_FILE_BYTES,
    &EVENT_RETENTION_DAYS,
    &OBSERVE_TOKENS,
    &OBSERVE_IDLE_S,
    &REFLECT_TOKENS,
    &DREAM_IDLE_S,
    &COMPACT_TOKENS,
    &LOG,
    &LOG_FORMAT,
    &OTLP_ENDPOINT,
];

/// Those that are checked and do nothing yet: what they are for is still to come.
pub(crate) static WITHOUT_EFFECT: [&Setting; 8] = [
    &METRICS_LISTEN,
    &METERING,
    &OBSERVE_TOKENS,
    &OBSERVE_IDLE_S,
    &REFLECT_TOKENS,
    &DREAM_IDLE_S,
    &COMPACT_TOKENS,
    &OTLP_ENDPOINT,
];

/// What begins with this is ours, so an unknown name that does is a mistake.
pub(crate) const PREFIX: &str = "HERM_";
/// The table of providers in the file.
pub(crate) const PROVIDERS_KEY: &str = "providers";

/// Read by the client commands, which may share a server's environment.
const CLIENT_VARIABLES: [&str; 2] = ["HERM_BASE_URL", "HERM_API_KEY"];
/// Read by the project's own test commands, whose servers inherit them.
const TEST_VARIABLES: [&str; 6] = [
    "HERM_TEST_POSTGRES_URL",
    "HERM_TEST_ROUNDS",
    "HERM_TEST_MUTATIONS",
    "HERM_TEST_SEED",
    "HERM_FAULT_POINT",
    "HERM_CI_TARGET_ROOT",
];

/// Every variable this crate knows, the providers' included and those of clients and tests that a server
/// ignores.
pub fn known_variables() -> BTreeSet<&'static str> {
    SETTINGS
        .iter()
        .map(|setting| setting.variable)
        .chain(
            crate::models::BUILT_IN.iter().flat_map(|provider| [provider.api_key_env, provider.base_url_env]),
        )
        .chain(CLIENT_VARIABLES)
        .chain(TEST_VARIABLES)
        .collect()
}

/// The member of `known` that takes the fewest edits to reach from `name`.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    known
        .into_iter()
        .min_by_key(|candidate| strsim::osa_distance(name, candidate))
        .unwrap_or("none")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_and_key_is_in_the_reference_page() {
        let page = include_str!("../../../docs/reference/configuration.md");
        for variable in known_variables() {
            assert!(page.contains(&format!("`{variable}`")), "{variable} is not in the page");
        }
        for setting in SETTINGS {
            let row = page.lines().find(|line| line.contains(&format!("| `{}`", setting.variable)));
            let row = row.unwrap_or_else(|| panic!("{} has no row", setting.variable));
            assert!(row.contains(&format!("`{}`", setting.key)), "{} is not in its row", setting.key);
        }
    }

    #[test]
    fn no_name_is_used_twice() {
        let keys: BTreeSet<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
        let variables: BTreeSet<&str> = SETTINGS.iter().map(|setting| setting.variable).collect();
        assert_eq!((keys.len(), variables.len()), (SETTINGS.len(), SETTINGS.len()));
    }

    #[test]
    fn the_nearest_name_is_the_one_meant() {
        assert_eq!(nearest("HERM_LISTN", known_variables()), "HERM_LISTEN");
        assert_eq!(nearest("HERM_DATABSE_URL", known_variables()), "HERM_DATABASE_URL");
    }
}
