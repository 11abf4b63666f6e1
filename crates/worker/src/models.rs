//! The models that a run may call: those of the providers, and the built-in `demo/tour`.

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use herm_llm::Providers;
use herm_types::model::{ModelEvent, ModelFault, ModelName, ModelRequest};

use crate::demo;

pub(crate) type Reply = BoxStream<'static, Result<ModelEvent, ModelFault>>;

pub(crate) struct Models {
    providers: Providers,
}

impl Models {
    pub(crate) fn new(providers: Providers) -> Self {
        Self { providers }
    }

    /// Whether a model can be called at all: its provider is configured, and has its key.
    pub(crate) fn can_call(&self, name: &str) -> bool {
        let provider = ModelName::parse(name).map(|name| name.provider).unwrap_or_default();
        provider == demo::PROVIDER || self.providers.can_call(&provider)
    }

    /// Calls a model once.
    pub(crate) async fn call(&self, name: &ModelName, request: &ModelRequest) -> Result<Reply, ModelFault> {
        if name.provider == demo::PROVIDER {
            return Ok(demo::reply(request).boxed());
        }
        Ok(self.providers.stream(&name.provider, request).await?.boxed())
    }
}
