//! `herm serve`.

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
    let config = load_from_machine(&serve.place.flags(serve.listen))?;
    logging::start(&config.telemetry)?;
    // Read while the database is opened.
    tokio::task::spawn_blocking(herm_outbound::roots);
    for setting in &config.without_effect {
        tracing::warn!("{setting} is set and does nothing in this version of Herm");
    }
    #[cfg(feature = "fault-points")]
    crate::fault::install();
    // Listened for before the server is ready, so that a signal right after the ready line is not lost.
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for SIGINT")?;
    let store = open::store(&config, Access { exclusive: true, migrate: serve.migrate }).await?;
    if let Some(key) = &config.keys.bootstrap {
        let key = ApiKey::parse(key.expose_secret()).context("cannot use HERM_BOOTSTRAP_KEY")?;
        herm_app::keys::accept_bootstrap(&store, &open::id_source(), &key)
            .await
            .context("failed to accept HERM_BOOTSTRAP_KEY")?;
    }
    let server = Server::start(&config, store).await?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "listening on http://{}", server.address).and_then(|()| stdout.flush())?;
    drop(stdout);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    server.stop().await;
    Ok(())
}
