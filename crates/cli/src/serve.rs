//! The command `herm serve`.

use std::io::Write as _;

use anyhow::Context as _;
use herm_config::load_from_machine;
use herm_crypto::ApiKey;
use secrecy::ExposeSecret as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::Serve;
use crate::logging;
use crate::open::{self, Access};
use crate::server::Server;

pub(crate) async fn run(serve: Serve) -> anyhow::Result<()> {
    let config = load_from_machine(&serve.location.flags(serve.listen))?;
    logging::start(&config.telemetry)?;
    // Load the root certificates in the background, while the database is opened.
    tokio::task::spawn_blocking(herm_outbound::root_certificates);
    for setting in &config.without_effect {
        tracing::warn!(setting, "a configured setting has no effect in this version of Herm");
    }
    #[cfg(feature = "failpoints")]
    crate::failpoint::install();
    // Install the signal handlers before the server reports that it is ready, so that a signal that arrives
    // immediately afterwards is not lost.
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for SIGINT")?;
    let store = open::store(&config, Access { exclusive: true, migrate: serve.migrate }).await?;
    if let Some(key) = &config.keys.bootstrap {
        let key = ApiKey::parse(key.expose_secret()).context("HERM_BOOTSTRAP_KEY is invalid")?;
        herm_app::keys::accept_bootstrap(&store, &open::id_source(), &key)
            .await
            .context("failed to store the key in HERM_BOOTSTRAP_KEY")?;
    }
    let server = Server::start(&config, store).await?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "listening on http://{}", server.address).and_then(|()| stdout.flush())?;
    drop(stdout);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("the server is shutting down");
    server.stop().await;
    Ok(())
}
