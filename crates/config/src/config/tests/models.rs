//! Providers and the default model.

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
    let config = good(&[], "");
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
fn keys_and_base_urls_come_from_their_variables() {
    let config = good(
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
    let config = good(&[("ANTHROPIC_API_KEY", ""), ("OWN_KEY", ""), ("OPENAI_BASE_URL", "")], &file);
    assert!(provider(&config, "anthropic").api_key.is_none());
    assert!(provider(&config, "own").api_key.is_none());
    assert_eq!(provider(&config, "openai").base_url, "https://api.openai.com/v1");
}

#[test]
fn a_key_that_no_header_can_carry_is_refused() {
    for wrong in ["two words", "line\n", "naïve"] {
        says(&[("OPENAI_API_KEY", wrong)], "", &["OPENAI_API_KEY", "set it again"]);
    }
}

#[test]
fn a_table_adds_a_provider_whose_key_is_in_the_variable_it_names() {
    let config = good(&[("OWN_KEY", "k")], &format!("{OWN}api_key_env = 'OWN_KEY'"));
    let own = provider(&config, "own");
    assert_eq!((own.kind, own.base_url.as_str()), (ProviderKind::OpenAiChat, "http://127.0.0.1:8000/v1"));
    assert_eq!((key(&own), own.api_key_env.as_deref()), (Some("k"), Some("OWN_KEY")));
    assert_eq!(config.models.providers.len(), 4);
}

#[test]
fn a_provider_may_take_no_key() {
    let own = provider(&good(&[], OWN), "own");
    assert!(own.api_key.is_none() && own.api_key_env.is_none());
}

#[test]
fn a_table_changes_a_built_in_provider_and_its_variable_still_counts_first() {
    let file = "[providers.openai]\nbase_url = 'https://gateway.test/v1'\napi_key_env = 'GATEWAY_KEY'";
    let config = good(&[("GATEWAY_KEY", "g"), ("OPENAI_API_KEY", "o")], file);
    let openai = provider(&config, "openai");
    assert_eq!((openai.base_url.as_str(), key(&openai)), ("https://gateway.test/v1", Some("g")));
    assert_eq!(openai.kind, ProviderKind::OpenAiChat);
    assert_eq!(config.models.providers.len(), 3);

    let config = good(&[("OPENAI_BASE_URL", "http://127.0.0.1:9")], file);
    assert_eq!(provider(&config, "openai").base_url, "http://127.0.0.1:9");
}

#[test]
fn a_provider_of_the_file_says_what_it_lacks() {
    says(&[], "[providers.own]\nbase_url = 'http://x'", &["`providers.own.kind`", "openai_chat"]);
    says(&[], "[providers.own]\nkind = 'anthropic'", &["`providers.own.base_url`", "https://"]);
    says(&[], "[providers.own]\nkind = 1", &["`providers.own.kind`", "in quotes"]);
    says(&[], "[providers.own]\nbaseurl = 'x'", &["`providers.own.baseurl`", "did you mean base_url?"]);
    says(&[], "[providers]\nown = 'x'", &["`providers.own`", "[providers.NAME]"]);
    says(
        &[],
        &OWN.replace("http://127.0.0.1:8000/v1/", "nowhere"),
        &["`providers.own.base_url`", "not a URL"],
    );
}

#[test]
fn a_kind_is_one_of_those_spoken() {
    says(&[], &OWN.replace("openai_chat", "gemini"), &["`gemini`", "`anthropic`, `openai_chat`"]);
    says(&[], &OWN.replace("openai_chat", "openai_responses"), &["not supported yet", "openai_chat"]);
    let config = good(&[], &OWN.replace("openai_chat", "anthropic"));
    assert_eq!(provider(&config, "own").kind, ProviderKind::Anthropic);
}

#[test]
fn a_key_written_where_its_variable_belongs_is_refused_and_not_repeated() {
    let message = message(&[], &format!("{OWN}api_key_env = 'sk-s3cret'"));
    assert!(message.contains("`providers.own.api_key_env`") && !message.contains("s3cret"), "{message}");
}

#[test]
fn no_secret_of_the_server_is_sent_to_a_provider() {
    says(&[], &format!("{OWN}api_key_env = 'HERM_MASTER_KEY'"), &["HERM_MASTER_KEY", "use another variable"]);
}

#[test]
fn a_key_may_have_a_name_like_ours() {
    let file = format!("{OWN}api_key_env = 'HERM_OWN_KEY'");
    assert_eq!(key(&provider(&good(&[("HERM_OWN_KEY", "k")], &file), "own")), Some("k"));
    says(&[("HERM_OWN_KEY", "k")], "", &["HERM_OWN_KEY"]);
}

#[test]
fn the_name_demo_is_taken() {
    says(&[], &OWN.replace("own", "demo"), &["`providers.demo`", "canned script"]);
    let config = good(&[("HERM_DEFAULT_MODEL", DEMO_MODEL)], "");
    assert_eq!(config.models.default_model.to_string(), DEMO_MODEL);
    assert!(config.models.is_known("demo") && config.models.provider("demo").is_none());
}

#[test]
fn a_providers_name_can_begin_a_models_name() {
    for wrong in ["'a/b'", "'Own'", "'ö'", "''"] {
        says(&[], &OWN.replace("own", wrong), &["a provider's name"]);
    }
    assert!(load(&[], &OWN.replace("own", "own-2_x")).is_ok());
}

#[test]
fn the_file_adds_at_most_64_providers() {
    let tables =
        |count: usize| (0..count).map(|n| OWN.replace("own", &format!("own{n}"))).collect::<String>();
    assert!(load(&[], &tables(64)).is_ok());
    says(&[], &tables(65), &["`providers` in herm.toml", "at most 64"]);
}

#[test]
fn the_default_model_names_a_provider_that_exists() {
    let config = good(&[("HERM_DEFAULT_MODEL", "openrouter/meta/llama")], "");
    assert_eq!(config.models.default_model.provider, "openrouter");
    assert_eq!(config.models.default_model.model, "meta/llama");
    let file = format!("default_model = 'own/big'\n{OWN}");
    assert_eq!(good(&[], &file).models.default_model.provider, "own");

    says(
        &[],
        "default_model = 'own/big'",
        &["`default_model` in herm.toml", "`own`", "anthropic, openai, openrouter"],
    );
    for wrong in ["sonnet", "/x", "anthropic/", "anthropic/two words"] {
        says(&[("HERM_DEFAULT_MODEL", wrong)], "", &["HERM_DEFAULT_MODEL", "provider/model"]);
    }
}

#[test]
fn models_are_named_for_any_provider() {
    let file = format!("{OWN}models = ['llama-4', 'org/model:7b']\n[providers.openai]\nmodels = ['gpt-5']");
    let config = good(&[], &file);
    assert_eq!(provider(&config, "own").models, ["llama-4", "org/model:7b"]);
    assert_eq!(provider(&config, "openai").models, ["gpt-5"]);
    assert!(provider(&config, "anthropic").models.is_empty());
    // One that takes no key lacks none.
    assert!(provider(&config, "own").has_key() && !provider(&config, "openai").has_key());
}

#[test]
fn a_model_that_nobody_could_name_is_refused() {
    for (models, part) in [
        ("['a b']", "`a b`"),
        ("['']", "cannot be a model's name"),
        ("'gpt-5'", "list of strings"),
        ("[1]", "list of strings"),
    ] {
        says(&[], &format!("{OWN}models = {models}"), &["`providers.own.models` in herm.toml", part]);
    }
    let many: Vec<String> = (0..257).map(|number| format!("'m{number}'")).collect();
    says(&[], &format!("{OWN}models = [{}]", many.join(",")), &["at most 256 models"]);
}
