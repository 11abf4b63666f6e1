//! The settings for logs and traces.

use tracing_subscriber::EnvFilter;

use crate::Error;
use crate::base_url::http_base_url;
use crate::setting;
use crate::source::Sources;

const DEFAULT_FILTER: &str = "info";

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Human-readable text.
    Text,
    /// One JSON object per line.
    Json,
}

/// The settings for logs and traces.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// The filter for log lines, in the syntax of `tracing`. It has been validated.
    pub log_filter: String,
    /// The format of log lines.
    pub log_format: LogFormat,
    /// The URL to which traces are sent, without a trailing `/`. With `None`, no traces are sent.
    pub otlp_endpoint: Option<String>,
}

impl Telemetry {
    pub(crate) fn load(sources: &Sources<'_>) -> Result<Self, Error> {
        let filter = sources.text(&setting::LOG)?;
        if let Some(raw) = &filter {
            EnvFilter::builder().parse(&raw.value).map_err(|_| {
                raw.unexpected("a level (`warn`, `info`, `debug`) or a list such as `info,herm=debug`")
            })?;
        }
        let log_format = sources
            .text(&setting::LOG_FORMAT)?
            .map(|raw| raw.choose(&[("text", LogFormat::Text), ("json", LogFormat::Json)]))
            .transpose()?
            .unwrap_or(LogFormat::Text);
        Ok(Self {
            log_filter: filter.map_or_else(|| DEFAULT_FILTER.to_owned(), |raw| raw.value),
            log_format,
            otlp_endpoint: sources
                .text(&setting::OTLP_ENDPOINT)?
                .map(|raw| http_base_url(&raw))
                .transpose()?,
        })
    }
}
