use std::num::NonZeroU32;
use std::time::Duration;

use secrecy::ExposeSecret as _;

use super::*;
use crate::setting::SETTINGS;
use herm_types::network::PrivateTarget;
use herm_types::sandbox::EgressMode;

use crate::{CorsOrigins, LogFormat, ProviderKind, SandboxFallback};

const MASTER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// Loads a configuration. An empty `file` means that there is no configuration file.
fn load_all(flags: &Flags, variables: &[(&str, &str)], file: &str) -> Result<Config, Error> {
    let env = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let file = (!file.is_empty()).then_some((Path::new("herm.toml"), file));
    Config::load(flags, &env, file)
}

fn load(variables: &[(&str, &str)], file: &str) -> Result<Config, Error> {
    load_all(&Flags::default(), variables, file)
}

fn load_valid(variables: &[(&str, &str)], file: &str) -> Config {
    load(variables, file).expect("a valid configuration")
}

fn error_message(variables: &[(&str, &str)], file: &str) -> String {
    load(variables, file).expect_err("an invalid configuration").to_string()
}

#[track_caller]
fn assert_error(variables: &[(&str, &str)], file: &str, parts: &[&str]) {
    let message = error_message(variables, file);
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

mod cors;
mod models;

#[test]
fn defaults_alone_are_a_valid_configuration() {
    let config = load_valid(&[], "");
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:4376");
    assert_eq!(config.server.data_dir, Path::new("./herm-data"));
    assert_eq!((config.server.public_url, config.server.metrics_listen), (None, None));
    assert_eq!((config.server.rate_limit, config.server.metering), (None, false));
    assert_eq!(config.server.max_file_bytes, 100 * 1024 * 1024);
    assert_eq!(config.server.max_json_bytes, 1024 * 1024);
    assert_eq!(config.server.cors_origins, CorsOrigins::List(Vec::new()));
    assert!(matches!(config.database, Database::Sqlite { dir } if dir == Path::new("./herm-data")));
    assert!(config.keys.bootstrap.is_none() && config.keys.master.is_none());
    assert_eq!(config.models.default_model.to_string(), "anthropic/claude-sonnet-4.5");
    assert_eq!(config.sandbox.fallback, SandboxFallback::Local);
    assert_eq!(config.sandbox.docker_host, "unix:///var/run/docker.sock");
    assert_eq!(config.network.egress_default, EgressMode::Open);
    assert!(config.network.allow_private_urls.is_empty() && config.network.allow_private_egress.is_empty());
    assert_eq!(config.telemetry.log_filter, "info");
    assert_eq!((config.telemetry.log_format, config.telemetry.otlp_endpoint), (LogFormat::Text, None));
}

#[test]
fn flags_override_variables_which_override_the_file() {
    let file = "listen = '127.0.0.1:3'";
    let variable = [("HERM_LISTEN", "127.0.0.1:2")];
    let flags = Flags { listen: Some("127.0.0.1:1".to_owned()), ..Flags::default() };
    let port = |config: Result<Config, Error>| config.expect("a valid configuration").server.listen.port();
    assert_eq!(port(load_all(&flags, &variable, file)), 1);
    assert_eq!(port(load(&variable, file)), 2);
    assert_eq!(port(load(&[], file)), 3);
    assert_eq!(port(load(&[], "")), 4376);
}

#[test]
fn every_flag_sets_its_setting() {
    let flags = Flags {
        listen: Some("[::1]:0".to_owned()),
        data_dir: Some("/var/lib/herm".into()),
        database_url: Some("postgres://herm:hunter2@db/herm".into()),
        config: None,
    };
    let config = load_all(&flags, &[], "").expect("a valid configuration");
    assert_eq!(config.server.listen.to_string(), "[::1]:0");
    assert_eq!(config.server.data_dir, Path::new("/var/lib/herm"));
    let Database::Postgres { url } = config.database else { panic!("not PostgreSQL") };
    assert_eq!(url.expose_secret(), "postgres://herm:hunter2@db/herm");
}

#[test]
fn the_error_of_an_invalid_flag_names_the_flag() {
    let flags = Flags { listen: Some("4376".to_owned()), ..Flags::default() };
    let message = load_all(&flags, &[], "").expect_err("an invalid configuration").to_string();
    assert!(message.contains("--listen") && message.contains("IP:PORT"), "{message}");
    let flags = Flags { data_dir: Some("".into()), ..Flags::default() };
    assert!(load_all(&flags, &[], "").is_err());
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let config = load_valid(&[("HERM_LISTEN", ""), ("HERM_RATE_LIMIT", "")], "rate_limit = 7");
    assert_eq!(config.server.listen.port(), 4376);
    assert_eq!(config.server.rate_limit.map(NonZeroU32::get), Some(7));
}

#[test]
fn the_error_of_an_unknown_variable_suggests_the_nearest_name() {
    assert_error(&[("HERM_LISTN", "x")], "", &["HERM_LISTN", "did you mean HERM_LISTEN?"]);
    assert_error(&[("HERM_RATELIMIT", "")], "", &["HERM_RATELIMIT", "HERM_RATE_LIMIT"]);
    assert!(load(&[("HERMES_HOME", "x"), ("PATH", "x"), ("PRISM_API_KEY", "x")], "").is_ok());
}

#[test]
fn the_error_of_an_unknown_key_suggests_the_nearest_name() {
    assert_error(&[], "lisen = '127.0.0.1:1'", &["`lisen` in herm.toml", "did you mean listen?"]);
    assert_error(&[], "[provider.x]\nkind = 'anthropic'", &["`provider` in herm.toml", "providers"]);
    assert_error(&[], "[server]\nlisten = '127.0.0.1:1'", &["`server` in herm.toml"]);
}

#[test]
fn variables_of_clients_and_tests_are_ignored() {
    let ignored = ["HERM_BASE_URL", "HERM_API_KEY", "HERM_TEST_POSTGRES_URL", "HERM_TEST_ROUNDS"];
    let ignored_in_tests = ["HERM_FAILPOINT", "HERM_FAILPOINT_DRAIN_S", "HERM_CI_TARGET_ROOT"];
    for name in ignored.into_iter().chain(ignored_in_tests) {
        assert!(load(&[(name, "anything")], "").is_ok(), "{name}");
    }
}

#[test]
fn the_error_of_invalid_toml_contains_the_line_number_but_not_its_text() {
    let message = error_message(&[], "log = 'info'\nmaster_key = s3cret");
    assert!(message.contains("herm.toml is not valid TOML at line 2"), "{message}");
    assert!(!message.contains("s3cret"), "{message}");
}

#[test]
fn the_error_of_a_value_of_the_wrong_type_names_its_key() {
    assert_error(&[], "listen = ['127.0.0.1:1']", &["`listen` in herm.toml", "one value"]);
    assert_error(&[], "rate_limit = 1.5", &["`rate_limit` in herm.toml", "whole number"]);
    assert_error(&[], "max_file_bytes = 0", &["`max_file_bytes` in herm.toml", "from 1 to"]);
    assert_error(&[], "allow_private_urls = [1]", &["`allow_private_urls` in herm.toml", "in quotes"]);
    assert_error(&[], "[listen]\nport = 1", &["`listen` in herm.toml"]);
    assert_error(&[], "providers = 'none'", &["`providers` in herm.toml", "[providers.NAME]"]);
}

#[test]
fn settings_without_effect_are_parsed() {
    let file = "metering = 'on'\nmax_file_bytes = 1000\nrate_limit = 20\nmetrics_listen = '127.0.0.1:9464'\n\
                docker_host = 'unix:///run/engine.sock'\nsandbox_image = 'registry.example.com/herm/sandbox:1.2'\n\
                otlp_endpoint = 'http://127.0.0.1:4318/'\npublic_url = 'https://agents.example.com/'";
    let config = load_valid(&[], file);
    assert!(config.server.metering);
    assert_eq!(config.server.max_file_bytes, 1000);
    assert_eq!(config.server.rate_limit.map(NonZeroU32::get), Some(20));
    assert_eq!(config.server.metrics_listen.map(|address| address.port()), Some(9464));
    assert_eq!(config.server.public_url.as_deref(), Some("https://agents.example.com"));
    assert_eq!(config.sandbox.docker_host, "unix:///run/engine.sock");
    assert_eq!(config.sandbox.image, "registry.example.com/herm/sandbox:1.2");
    assert_eq!(config.telemetry.otlp_endpoint.as_deref(), Some("http://127.0.0.1:4318"));
}

#[test]
fn settings_without_effect_are_reported_and_documented() {
    assert_eq!(
        load_valid(&[("HERM_LOG", "debug")], "public_url = \"https://a.example\"").without_effect,
        [""; 0]
    );
    let config = load_valid(&[("HERM_METERING", "on"), ("HERM_DOCKER_HOST", "")], "dream_idle_s = 5");
    assert_eq!(config.without_effect, ["HERM_METERING", "HERM_DREAM_IDLE_S"]);
    let page = include_str!("../../../../docs/reference/configuration.md");
    let (_, list) = page.split_once("## Settings without effect\n").unwrap();
    let (list, _) = list.split_once("\n## ").unwrap();
    let documented: std::collections::BTreeSet<&str> = list.split('`').skip(1).step_by(2).collect();
    let variables = WITHOUT_EFFECT.iter().map(|setting| setting.variable);
    assert_eq!(documented, variables.collect());
}

#[test]
fn an_unknown_word_is_rejected_with_the_allowed_words() {
    assert_eq!(load_valid(&[("HERM_SANDBOX", "refuse")], "").sandbox.fallback, SandboxFallback::Refuse);
    assert_eq!(load_valid(&[("HERM_EGRESS_DEFAULT", "deny")], "").network.egress_default, EgressMode::Deny);
    assert_eq!(
        load_valid(&[("HERM_EGRESS_DEFAULT", "allowlist")], "").network.egress_default,
        EgressMode::Allowlist
    );
    assert_eq!(load_valid(&[("HERM_LOG_FORMAT", "json")], "").telemetry.log_format, LogFormat::Json);
    assert_error(&[("HERM_SANDBOX", "docker")], "", &["HERM_SANDBOX", "`docker`", "`local`, `refuse`"]);
    assert_error(&[("HERM_METERING", "true")], "", &["HERM_METERING", "`off`, `on`"]);
    assert_error(&[("HERM_LOG_FORMAT", "JSON")], "", &["`text`, `json`"]);
}

#[test]
fn the_maximum_body_size_is_within_limits() {
    assert_eq!(load_valid(&[("HERM_MAX_JSON_BYTES", "2097152")], "").server.max_json_bytes, 2 * 1024 * 1024);
    assert_eq!(load_valid(&[], "max_json_bytes = 65536").server.max_json_bytes, 65536);
    for value in ["0", "16383", "67108865", "1 MiB", "-1"] {
        assert_error(&[("HERM_MAX_JSON_BYTES", value)], "", &["HERM_MAX_JSON_BYTES", "16384 to 67108864"]);
    }
}

#[test]
fn event_retention_is_a_number_of_days_or_off() {
    assert_eq!(load_valid(&[], "").server.event_retention_days, None);
    assert_eq!(
        load_valid(&[("HERM_EVENT_RETENTION_DAYS", "off")], "event_retention_days = 5")
            .server
            .event_retention_days,
        None
    );
    assert_eq!(load_valid(&[], "event_retention_days = 30").server.event_retention_days, Some(30));
    for value in ["0", "36501", "30d", "-1"] {
        assert_error(
            &[("HERM_EVENT_RETENTION_DAYS", value)],
            "",
            &["HERM_EVENT_RETENTION_DAYS", "1 to 36500"],
        );
    }
}

#[test]
fn model_timeouts_are_configurable() {
    let models = load_valid(&[("HERM_MODEL_FIRST_BYTE_S", "900")], "model_silence_s = 1").models;
    assert_eq!((models.first_byte.as_secs(), models.silence.as_secs()), (900, 1));
    let models = load_valid(&[], "").models;
    assert_eq!((models.first_byte.as_secs(), models.silence.as_secs()), (300, 120));
    for variable in ["HERM_MODEL_FIRST_BYTE_S", "HERM_MODEL_SILENCE_S"] {
        assert_error(&[(variable, "0")], "", &[variable, "1 to 3600"]);
    }
}

#[test]
fn a_rate_limit_of_zero_is_rejected() {
    assert_eq!(load_valid(&[("HERM_RATE_LIMIT", "off")], "rate_limit = 5").server.rate_limit, None);
    assert_error(&[("HERM_RATE_LIMIT", "0")], "", &["refuse every request"]);
    assert_error(&[("HERM_RATE_LIMIT", "-1")], "", &["HERM_RATE_LIMIT", "at least 1"]);
    assert!(load(&[("HERM_RATE_LIMIT", "4294967296")], "").is_err());
}

#[test]
fn invalid_addresses_are_rejected() {
    assert_error(
        &[("HERM_LISTEN", "localhost:4376")],
        "",
        &["HERM_LISTEN", "localhost:4376", "127.0.0.1:4376"],
    );
    assert_error(&[("HERM_METRICS_LISTEN", ":9464")], "", &["HERM_METRICS_LISTEN"]);
    assert_error(&[("HERM_DOCKER_HOST", "/var/run/docker.sock")], "", &["unix://"]);
    assert_error(&[("HERM_DOCKER_HOST", "unix://docker.sock")], "", &["unix://"]);
    assert_error(&[("HERM_SANDBOX_IMAGE", "an image")], "", &["image reference"]);
    assert_error(&[("HERM_PUBLIC_URL", "agents.example.com")], "", &["HERM_PUBLIC_URL", "not a URL"]);
    assert_error(&[("HERM_PUBLIC_URL", "ftp://example.com")], "", &["ftp://"]);
    assert_error(&[("HERM_PUBLIC_URL", "https://example.com/?a=b")], "", &["from ? or #"]);
}

#[test]
fn a_database_url_must_be_postgres() {
    for scheme in ["postgres", "postgresql"] {
        let config = load_valid(&[("HERM_DATABASE_URL", &format!("{scheme}://u@h/d"))], "");
        assert!(matches!(config.database, Database::Postgres { .. }));
    }
    assert_error(&[("HERM_DATABASE_URL", "sqlite://herm.db")], "", &["sqlite://", "remove this setting"]);
    assert_error(&[("HERM_DATABASE_URL", "mysql://h/d")], "", &["mysql://", "postgres://"]);
}

#[test]
fn sqlite_is_in_the_data_directory() {
    let config = load_valid(&[("HERM_DATA_DIR", "/srv/herm")], "");
    assert!(matches!(config.database, Database::Sqlite { dir } if dir == Path::new("/srv/herm")));
}

#[test]
fn a_master_key_has_32_bytes() {
    assert!(load_valid(&[("HERM_MASTER_KEY", MASTER_KEY)], "").keys.master.is_some());
    for invalid in ["c2hvcnQ=", "not base64!", &MASTER_KEY[1..]] {
        let message = error_message(&[("HERM_MASTER_KEY", invalid)], "");
        assert!(message.contains("HERM_MASTER_KEY") && message.contains("32 bytes"), "{message}");
        assert!(!message.contains(invalid), "{message}");
    }
}

#[test]
fn debug_output_and_errors_contain_no_secret() {
    let variables = [
        ("HERM_BOOTSTRAP_KEY", "herm_sk_s3cret"),
        ("HERM_MASTER_KEY", MASTER_KEY),
        ("HERM_DATABASE_URL", "postgres://herm:s3cret@db/herm"),
        ("ANTHROPIC_API_KEY", "sk-ant-s3cret"),
    ];
    let debug = format!("{:?}", load_valid(&variables, ""));
    assert!(!debug.contains("s3cret") && !debug.contains(MASTER_KEY), "{debug}");
    for (name, value) in [
        ("HERM_DATABASE_URL", "mysql://root:s3cret@db/herm"),
        ("HERM_DATABASE_URL", "root:s3cret@db"),
        ("ANTHROPIC_BASE_URL", "https://me:s3cret@proxy"),
        ("OPENAI_API_KEY", "sk-s3cret\n"),
        ("HERM_MASTER_KEY", "s3cret"),
    ] {
        let message = error_message(&[(name, value)], "");
        assert!(message.contains(name) && !message.contains("s3cret"), "{message}");
    }
}

#[test]
fn private_targets_are_networks_addresses_and_hosts() {
    let config =
        load_valid(&[("HERM_ALLOW_PRIVATE_URLS", "10.0.0.0/8, 192.168.1.20,Intranet.Example.com.,::1")], "");
    let targets = &config.network.allow_private_urls;
    let covers = |address: &str| {
        let address = address.parse().expect("an address");
        targets.iter().any(|target| target.covers_address(address))
    };
    assert!(covers("10.1.2.3") && covers("192.168.1.20") && covers("::1") && covers("::ffff:10.1.2.3"));
    assert!(!covers("192.168.1.21") && !covers("11.0.0.1") && !covers("127.0.0.1"));
    assert!(targets.contains(&PrivateTarget::Host("intranet.example.com".to_owned())));
    let names = ["intranet.example.com", "INTRANET.example.com."];
    assert!(names.iter().all(|name| targets.iter().any(|target| target.covers_host(name))));
    assert!(!targets.iter().any(|target| target.covers_host("example.com")));
    assert!(config.network.allow_private_egress.is_empty(), "the two lists are independent");
}

#[test]
fn ambiguous_or_invalid_private_targets_are_rejected() {
    assert_error(&[("HERM_ALLOW_PRIVATE_EGRESS", "10.0.0.7/8")], "", &["10.0.0.0/8 for the network"]);
    for invalid in ["http://10.0.0.1", "host:80", "10.0.0.256", "a b", "*.example.com", "x..y"] {
        assert_error(&[("HERM_ALLOW_PRIVATE_URLS", invalid)], "", &["HERM_ALLOW_PRIVATE_URLS", invalid]);
    }
    let many = vec!["a.test"; 257].join(",");
    assert_error(&[("HERM_ALLOW_PRIVATE_URLS", &many)], "", &["at most 256"]);
}

#[test]
fn an_empty_list_variable_overrides_the_file() {
    let file = "allow_private_urls = ['10.0.0.0/8', 'x.test']";
    assert_eq!(load_valid(&[], file).network.allow_private_urls.len(), 2);
    assert!(load_valid(&[("HERM_ALLOW_PRIVATE_URLS", "")], file).network.allow_private_urls.is_empty());
}

#[test]
fn memory_thresholds_are_numbers_within_limits() {
    let config = load_valid(
        &[("HERM_MEMORY_OBSERVE_TOKENS", "200"), ("HERM_MEMORY_OBSERVE_IDLE_S", "0")],
        "memory_reflect_tokens = 300\ndream_idle_s = 1\ncontext_compact_tokens = 400",
    );
    let memory = config.memory;
    assert_eq!((memory.observe_tokens, memory.reflect_tokens, memory.compact_tokens), (200, 300, 400));
    assert_eq!((memory.observe_idle, memory.dream_idle), (Duration::ZERO, Duration::from_secs(1)));
    assert_error(&[("HERM_MEMORY_OBSERVE_TOKENS", "0")], "", &["from 1 to 10000000"]);
    assert_error(&[("HERM_DREAM_IDLE_S", "9999999")], "", &["from 0 to 2592000"]);
    assert_error(&[("HERM_CONTEXT_COMPACT_TOKENS", "many")], "", &["HERM_CONTEXT_COMPACT_TOKENS", "many"]);
}

#[test]
fn an_invalid_log_filter_is_rejected() {
    assert_eq!(load_valid(&[("HERM_LOG", "warn,herm=debug")], "").telemetry.log_filter, "warn,herm=debug");
    assert_error(&[("HERM_LOG", "herm=loud")], "", &["HERM_LOG", "herm=loud"]);
}

/// Returns the content of the example configuration file with every setting uncommented.
fn example() -> String {
    let lines = include_str!("../../../../herm.example.toml").lines();
    let lines =
        lines.map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_unmodified_example_file_changes_nothing() {
    let unmodified = load_valid(&[], include_str!("../../../../herm.example.toml"));
    assert_eq!(format!("{unmodified:?}"), format!("{:?}", load_valid(&[], "")));
}

#[test]
fn the_example_file_is_valid_with_every_setting_uncommented() {
    let example = example();
    let config = load_valid(&[("OWN_API_KEY", "k")], &example);
    for setting in SETTINGS {
        let assignment = format!("\n{} = ", setting.key);
        assert_eq!(example.matches(&assignment).count(), 1, "{}", setting.key);
    }
    assert_eq!(config.models.provider("own").map(|own| own.kind), Some(ProviderKind::OpenAiChat));
}

#[test]
fn the_example_file_shows_the_defaults() {
    let (shown, default) = (load_valid(&[], &example()), load_valid(&[], ""));
    assert_eq!(shown.server.listen, default.server.listen);
    assert_eq!(shown.server.data_dir, default.server.data_dir);
    assert_eq!(shown.server.rate_limit, default.server.rate_limit);
    assert_eq!(shown.server.metering, default.server.metering);
    assert_eq!(shown.models.default_model, default.models.default_model);
    assert_eq!(format!("{:?}", shown.sandbox), format!("{:?}", default.sandbox));
    assert_eq!(shown.network.egress_default, default.network.egress_default);
    assert_eq!(shown.network.allow_private_egress, default.network.allow_private_egress);
    assert_eq!(format!("{:?}", shown.memory), format!("{:?}", default.memory));
    assert_eq!(shown.telemetry.log_filter, default.telemetry.log_filter);
    assert_eq!(shown.telemetry.log_format, default.telemetry.log_format);
}
