//! Runs Herm as one of the compared servers.

use herm_testkit::process::Server;

use crate::api::Api;
use crate::setup::ServerSetup;

/// A running Herm server and an API client for it.
pub(crate) struct HermServer {
    pub(super) server: Server,
    pub(super) api: Api,
}

impl HermServer {
    pub(super) async fn start(setup: &ServerSetup) -> anyhow::Result<Self> {
        let (server, api) = setup.start().await?;
        Ok(Self { server, api })
    }
}
