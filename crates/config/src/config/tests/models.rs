//! Tests of the settings for model providers and the default model.

use super::*;
use crate::{DEMO_MODEL, Provider};

const OWN: &str = "[providers.own]\nkind = 'openai_chat'\nbase_url = 'http://127.0.0.1:8000/v1/'\n";

fn provider(config: &Config, name: &str) -> Provider {
    config.models.provider(name).expect("known").clone()
}

fn key(provider: &Provider) -> Option<&str> {
    provider.api_key.as_ref().map(|key| key.expose_secret())
}

#[test]
fn three_providers_are_built_in() {
    let config = load_valid(&[], "");
    let built_in: Vec<(&str, ProviderKind, &str)> = config
        .models
        .providers
        .iter()
        .map(|provider| (provider.name.as_str(), provider.kind, provider.base_url.as_str()))
        .collect();
    assert_eq!(
        built_in,
        [
            ("anthropic", ProviderKind::Anthropic, "https://api.anthropic.com"),
            ("openai", ProviderKind::OpenAiChat, "https://api.openai.com/v1"),
            ("openrouter", ProviderKind::OpenAiChat, "https://openrouter.ai/api/v1"),
        ]
    );
    assert!(config.models.providers.iter().all(|provider| provider.api_key.is_none()));
    assert_eq!(provider(&config, "openai").api_key_env.as_deref(), Some("OPENAI_API_KEY"));
}

#[test]
fn keys_and_base_urls_are_read_from_their_variables() {
    let config = load_valid(
        &[
            ("ANTHROPIC_API_KEY", "a"),
            ("OPENAI_API_KEY", "b"),
            ("OPENROUTER_API_KEY", "c"),
            ("OPENAI_BASE_URL", "http://127.0.0.1:9/v1/"),
        ],
        "",
    );
    let keys: Vec<Option<&str>> = config.models.providers.iter().map(key).collect();
    assert_eq!(keys, [Some("a"), Some("b"), Some("c")]);
    assert_eq!(provider(&config, "openai").base_url, "http://127.0.0.1:9/v1");
}

#[test]
fn an_empty_key_counts_as_not_set() {
    let file = format!("{OWN}api_key_env = 'OWN_KEY'");
    let config = load_valid(&[("ANTHROPIC_API_KEY", ""), ("OWN_KEY", ""), ("OPENAI_BASE_URL", "")], &file);
    assert!(provider(&config, "anthropic").api_key.is_none());
    assert!(provider(&config, "own").api_key.is_none());
    assert_eq!(provider(&config, "openai").base_url, "https://api.openai.com/v1");
}

#[test]
fn a_key_that_is_invalid_in_a_header_is_rejected() {
    for invalid in ["two words", "line\n", "naïve"] {
        assert_error(&[("OPENAI_API_KEY", invalid)], "", &["OPENAI_API_KEY", "set it again"]);
    }
}

#[test]
fn a_table_adds_a_provider_with_the_key_from_its_variable() {
    let config = load_valid(&[("OWN_KEY", "k")], &format!("{OWN}api_key_env = 'OWN_KEY'"));
    let own = provider(&config, "own");
    assert_eq!((own.kind, own.base_url.as_str()), (ProviderKind::OpenAiChat, "http://127.0.0.1:8000/v1"));
    assert_eq!((key(&own), own.api_key_env.as_deref()), (Some("k"), Some("OWN_KEY")));
    assert_eq!(config.models.providers.len(), 4);
}

#[test]
fn a_provider_may_need_no_key() {
    let own = provider(&load_valid(&[], OWN), "own");
    assert!(own.api_key.is_none() && own.api_key_env.is_none());
}

#[test]
fn a_table_changes_a_built_in_provider_but_a_variable_overrides_it() {
    let file = "[providers.openai]\nbase_url = 'https://gateway.test/v1'\napi_key_env = 'GATEWAY_KEY'";
    let config = load_valid(&[("GATEWAY_KEY", "g"), ("OPENAI_API_KEY", "o")], file);
    let openai = provider(&config, "openai");
    assert_eq!((openai.base_url.as_str(), key(&openai)), ("https://gateway.test/v1", Some("g")));
    assert_eq!(openai.kind, ProviderKind::OpenAiChat);
    assert_eq!(config.models.providers.len(), 3);

    let config = load_valid(&[("OPENAI_BASE_URL", "http://127.0.0.1:9")], file);
    assert_eq!(provider(&config, "openai").base_url, "http://127.0.0.1:9");
}

#[test]
fn the_error_of_an_incomplete_provider_names_the_missing_key() {
    assert_error(&[], "[providers.own]\nbase_url = 'http://x'", &["`providers.own.kind`", "openai_chat"]);
    assert_error(&[], "[providers.own]\nkind = 'anthropic'", &["`providers.own.base_url`", "https://"]);
    assert_error(&[], "[providers.own]\nkind = 1", &["`providers.own.kind`", "in quotes"]);
    assert_error(
        &[],
        "[providers.own]\nbaseurl = 'x'",
        &["`providers.own.baseurl`", "did you mean base_url?"],
    );
    assert_error(&[], "[providers]\nown = 'x'", &["`providers.own`", "[providers.NAME]"]);
    assert_error(
        &[],
        &OWN.replace("http://127.0.0.1:8000/v1/", "nowhere"),
        &["`providers.own.base_url`", "not a URL"],
    );
}

#[test]
fn an_unsupported_kind_is_rejected() {
    assert_error(&[], &OWN.replace("openai_chat", "gemini"), &["`gemini`", "`anthropic`, `openai_chat`"]);
    assert_error(&[], &OWN.replace("openai_chat", "openai_responses"), &["not supported yet", "openai_chat"]);
    let config = load_valid(&[], &OWN.replace("openai_chat", "anthropic"));
    assert_eq!(provider(&config, "own").kind, ProviderKind::Anthropic);
}

#[test]
fn a_key_in_place_of_its_variable_is_rejected_without_repeating_it() {
    let message = error_message(&[], &format!("{OWN}api_key_env = 'sk-s3cret'"));
    assert!(message.contains("`providers.own.api_key_env`") && !message.contains("s3cret"), "{message}");
}

#[test]
fn a_setting_of_the_server_cannot_be_a_provider_key() {
    assert_error(
        &[],
        &format!("{OWN}api_key_env = 'HERM_MASTER_KEY'"),
        &["HERM_MASTER_KEY", "use another variable"],
    );
}

#[test]
fn a_provider_key_variable_may_have_the_server_prefix() {
    let file = format!("{OWN}api_key_env = 'HERM_OWN_KEY'");
    assert_eq!(key(&provider(&load_valid(&[("HERM_OWN_KEY", "k")], &file), "own")), Some("k"));
    assert_error(&[("HERM_OWN_KEY", "k")], "", &["HERM_OWN_KEY"]);
}

#[test]
fn the_name_demo_is_reserved() {
    assert_error(&[], &OWN.replace("own", "demo"), &["`providers.demo`", "built-in demo provider"]);
    let config = load_valid(&[("HERM_DEFAULT_MODEL", DEMO_MODEL)], "");
    assert_eq!(config.models.default_model.to_string(), DEMO_MODEL);
    assert!(config.models.is_known("demo") && config.models.provider("demo").is_none());
}

#[test]
fn an_invalid_provider_name_is_rejected() {
    for invalid in ["'a/b'", "'Own'", "'ö'", "''"] {
        assert_error(&[], &OWN.replace("own", invalid), &["a provider name"]);
    }
    assert!(load(&[], &OWN.replace("own", "own-2_x")).is_ok());
}

#[test]
fn more_than_64_providers_are_rejected() {
    let tables =
        |count: usize| (0..count).map(|n| OWN.replace("own", &format!("own{n}"))).collect::<String>();
    assert!(load(&[], &tables(64)).is_ok());
    assert_error(&[], &tables(65), &["`providers` in herm.toml", "at most 64"]);
}

#[test]
fn the_provider_of_the_default_model_must_exist() {
    let config = load_valid(&[("HERM_DEFAULT_MODEL", "openrouter/meta/llama")], "");
    assert_eq!(config.models.default_model.provider, "openrouter");
    assert_eq!(config.models.default_model.model, "meta/llama");
    let file = format!("default_model = 'own/big'\n{OWN}");
    assert_eq!(load_valid(&[], &file).models.default_model.provider, "own");

    assert_error(
        &[],
        "default_model = 'own/big'",
        &["`default_model` in herm.toml", "`own`", "anthropic, openai, openrouter, demo"],
    );
    for invalid in ["sonnet", "/x", "anthropic/", "anthropic/two words"] {
        assert_error(&[("HERM_DEFAULT_MODEL", invalid)], "", &["HERM_DEFAULT_MODEL", "provider/model"]);
    }
}

#[test]
fn models_can_be_listed_for_any_provider() {
    let file = format!("{OWN}models = ['llama-4', 'org/model:7b']\n[providers.openai]\nmodels = ['gpt-5']");
    let config = load_valid(&[], &file);
    assert_eq!(provider(&config, "own").models, ["llama-4", "org/model:7b"]);
    assert_eq!(provider(&config, "openai").models, ["gpt-5"]);
    assert!(provider(&config, "anthropic").models.is_empty());
    // `has_key` is also true for a provider that needs no key.
    assert!(provider(&config, "own").has_key() && !provider(&config, "openai").has_key());
}

#[test]
fn an_invalid_listed_model_is_rejected() {
    for (models, part) in [
        ("['a b']", "`a b`"),
        ("['']", "is not a valid model name"),
        ("'gpt-5'", "list of strings"),
        ("[1]", "list of strings"),
    ] {
        assert_error(&[], &format!("{OWN}models = {models}"), &["`providers.own.models` in herm.toml", part]);
    }
    let many: Vec<String> = (0..257).map(|number| format!("'m{number}'")).collect();
    assert_error(&[], &format!("{OWN}models = [{}]", many.join(",")), &["at most 256 models"]);
}
