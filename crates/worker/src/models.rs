//! The models that a run can call: those of the configured providers, and the built-in `demo/tour`.

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use herm_llm::Providers;
use herm_types::model::{ModelError, ModelEvent, ModelName, ModelRequest};

use crate::demo;

pub(crate) type Reply = BoxStream<'static, Result<ModelEvent, ModelError>>;

pub(crate) struct Models {
    providers: Providers,
}

impl Models {
    pub(crate) fn new(providers: Providers) -> Self {
        Self { providers }
    }

    /// Returns true if the model's provider is configured and has an API key. Always true for the provider `demo`.
    pub(crate) fn can_call(&self, name: &str) -> bool {
        let provider = ModelName::parse(name).map(|name| name.provider).unwrap_or_default();
        provider == demo::PROVIDER || self.providers.can_call(&provider)
    }

    /// Calls a model once, without retries. Returns the reply as a stream.
    pub(crate) async fn call(&self, name: &ModelName, request: &ModelRequest) -> Result<Reply, ModelError> {
        if name.provider == demo::PROVIDER {
            return Ok(demo::reply(request).boxed());
        }
        Ok(self.providers.stream(&name.provider, request).await?.boxed())
    }
}
