//! Logging to stderr, as text or JSON. `HERM_LOG` contains the filter for log lines.

use anyhow::Context as _;
use herm_config::{LogFormat, Telemetry};
use tracing_subscriber::EnvFilter;

pub(crate) fn start(telemetry: &Telemetry) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&telemetry.log_filter).context("HERM_LOG is invalid")?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match telemetry.log_format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("failed to initialize logging: {error}"))
}
