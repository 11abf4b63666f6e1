//! Herm, as one of those that are compared.

use herm_testkit::process::Server;

use crate::api::Api;
use crate::bed::Bed;

pub(crate) struct HermServer {
    pub(super) server: Server,
    pub(super) api: Api,
}

impl HermServer {
    pub(super) async fn start(bed: &Bed) -> anyhow::Result<Self> {
        let (server, api) = bed.start().await?;
        Ok(Self { server, api })
    }
}
