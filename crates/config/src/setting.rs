//! The list of all settings. A setting has an environment variable, a key in the configuration file, and
//! possibly a command-line flag.
//!
//! A test checks that the reference page in the documentation contains every setting of the list.

use std::collections::BTreeSet;

/// The names under which one setting can be set. Other modules define the setting's type and default.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) variable: &'static str,
    pub(crate) key: &'static str,
    pub(crate) flag: Option<&'static str>,
}

const fn setting(variable: &'static str, key: &'static str) -> Setting {
    Setting { variable, key, flag: None }
}

const fn setting_with_flag(variable: &'static str, key: &'static str, flag: &'static str) -> Setting {
    Setting { variable, key, flag: Some(flag) }
}

pub(crate) static LISTEN: Setting = setting_with_flag("HERM_LISTEN", "listen", "--listen");
pub(crate) static DATA_DIR: Setting = setting_with_flag("HERM_DATA_DIR", "data_dir", "--data-dir");
pub(crate) static DATABASE_URL: Setting =
    setting_with_flag("HERM_DATABASE_URL", "database_url", "--database-url");
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

/// Settings that are validated but have no effect, because their feature does not exist yet.
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

/// The prefix of the server's environment variables. An unknown variable with this prefix is an error.
pub(crate) const PREFIX: &str = "HERM_";
/// The configuration file key that contains the tables of the model providers.
pub(crate) const PROVIDERS_KEY: &str = "providers";

/// Environment variables of client programs. The server ignores them, because it may share an environment
/// with a client.
const CLIENT_VARIABLES: [&str; 2] = ["HERM_BASE_URL", "HERM_API_KEY"];
/// Environment variables that the tests use. The server ignores them, because servers that a test starts
/// inherit them.
const TEST_VARIABLES: [&str; 7] = [
    "HERM_TEST_POSTGRES_URL",
    "HERM_TEST_ROUNDS",
    "HERM_TEST_MUTATIONS",
    "HERM_TEST_SEED",
    "HERM_FAILPOINT",
    "HERM_FAILPOINT_DRAIN_S",
    "HERM_CI_TARGET_ROOT",
];

/// Returns the names of all known environment variables: those of settings and providers, and those of
/// clients and tests, which a server ignores.
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

/// Returns the name in `known` that differs from `name` in the fewest characters (edit distance).
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
            assert!(page.contains(&format!("`{variable}`")), "{variable} is missing in the page");
        }
        for setting in SETTINGS {
            let row = page.lines().find(|line| line.contains(&format!("| `{}`", setting.variable)));
            let row = row.unwrap_or_else(|| panic!("{} has no row", setting.variable));
            assert!(row.contains(&format!("`{}`", setting.key)), "{} is missing in its row", setting.key);
        }
    }

    #[test]
    fn variables_and_keys_are_unique() {
        let keys: BTreeSet<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
        let variables: BTreeSet<&str> = SETTINGS.iter().map(|setting| setting.variable).collect();
        assert_eq!((keys.len(), variables.len()), (SETTINGS.len(), SETTINGS.len()));
    }

    #[test]
    fn the_nearest_name_of_a_mistyped_one_is_the_intended_one() {
        assert_eq!(nearest("HERM_LISTN", known_variables()), "HERM_LISTEN");
        assert_eq!(nearest("HERM_DATABSE_URL", known_variables()), "HERM_DATABASE_URL");
    }
}
