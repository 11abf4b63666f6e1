//! Logs and traces.

use tracing_subscriber::EnvFilter;

use crate::Error;
use crate::address::http_base;
use crate::setting;
use crate::source::Sources;

const DEFAULT_FILTER: &str = "info";

/// How a log line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Logs and traces.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// Which log lines are written: a filter of `tracing`, known to parse.
    pub log_filter: String,
    /// How they are written.
    pub log_format: LogFormat,
    /// Where traces are sent, if anywhere; without a last `/`.
    pub otlp_endpoint: Option<String>,
}

impl Telemetry {
    pub(crate) fn load(sources: &Sources<'_>) -> Result<Self, Error> {
        let filter = sources.text(&setting::LOG)?;
        if let Some(found) = &filter {
            EnvFilter::builder().parse(&found.value).map_err(|_| {
                found.not("a level (`warn`, `info`, `debug`) or a list such as `info,herm=debug`")
            })?;
        }
        let log_format = sources
            .text(&setting::LOG_FORMAT)?
            .map(|found| found.choose(&[("text", LogFormat::Text), ("json", LogFormat::Json)]))
            .transpose()?
            .unwrap_or(LogFormat::Text);
        Ok(Self {
            log_filter: filter.map_or_else(|| DEFAULT_FILTER.to_owned(), |found| found.value),
            log_format,
            otlp_endpoint: sources
                .text(&setting::OTLP_ENDPOINT)?
                .map(|found| http_base(&found))
                .transpose()?,
        })
    }
}
