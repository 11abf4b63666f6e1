//! Builds the options of the HTTP API from the server's configuration.

use herm_api::{CorsOrigins, ModelProvider, Options};
use herm_config::Config;

pub(crate) fn from_config(config: &Config) -> Options {
    Options {
        public_url: config.server.public_url.clone(),
        max_json_bytes: config.server.max_json_bytes,
        rate_limit: config.server.rate_limit,
        cors: match &config.server.cors_origins {
            herm_config::CorsOrigins::Any => CorsOrigins::Any,
            herm_config::CorsOrigins::List(origins) if origins.is_empty() => CorsOrigins::None,
            herm_config::CorsOrigins::List(origins) => CorsOrigins::List(origins.clone()),
        },
        providers: model_providers(config),
    }
}

/// Returns the model providers with the models that clients can choose. The default model is always included,
/// even if the configuration does not list it for its provider.
fn model_providers(config: &Config) -> Vec<ModelProvider> {
    let default = &config.models.default_model;
    let configured = config.models.providers.iter().map(|provider| {
        let mut models: Vec<String> =
            provider.models.iter().map(|model| format!("{}/{model}", provider.name)).collect();
        let default = Some(default.to_string()).filter(|_| default.provider == provider.name);
        models.extend(default.filter(|default| !models.contains(default)));
        ModelProvider { provider: provider.name.clone(), models, has_key: provider.has_key() }
    });
    let demo = ModelProvider {
        provider: herm_config::DEMO_PROVIDER.to_owned(),
        models: vec![herm_config::DEMO_MODEL.to_owned()],
        has_key: true,
    };
    configured.chain([demo]).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use herm_config::Flags;

    use super::*;

    const FILE: &str = "
public_url = 'https://agents.example.com'
max_json_bytes = 65536
rate_limit = 7
cors_origins = ['https://app.example.com']
default_model = 'own/big'
[providers.own]
kind = 'openai_chat'
base_url = 'http://127.0.0.1:8000/v1'
models = ['small']
";

    #[test]
    fn all_settings_are_applied() {
        let file = Some((Path::new("herm.toml"), FILE));
        let config = Config::load(&Flags::default(), &BTreeMap::new(), file).unwrap();
        let options = from_config(&config);
        assert_eq!(options.public_url.as_deref(), Some("https://agents.example.com"));
        assert_eq!((options.max_json_bytes, options.rate_limit.map(u32::from)), (65536, Some(7)));
        assert_eq!(options.cors, CorsOrigins::List(vec!["https://app.example.com".to_owned()]));
        let own = options.providers.iter().find(|provider| provider.provider == "own").unwrap();
        assert_eq!(
            (own.models.as_slice(), own.has_key),
            (["own/small".to_owned(), "own/big".to_owned()].as_slice(), true)
        );
        let names: Vec<&str> = options.providers.iter().map(|provider| provider.provider.as_str()).collect();
        assert_eq!(names, ["anthropic", "openai", "openrouter", "own", "demo"]);
    }

    #[test]
    fn cors_allows_only_configured_origins() {
        let cors = |value: &str| {
            let env = BTreeMap::from([("HERM_CORS_ORIGINS".to_owned(), value.to_owned())]);
            from_config(&Config::load(&Flags::default(), &env, None).unwrap()).cors
        };
        assert_eq!(cors(""), CorsOrigins::None);
        assert_eq!(cors("*"), CorsOrigins::Any);
    }
}
