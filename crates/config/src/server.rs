//! The addresses, directories and limits of the server.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use crate::Error;
use crate::base_url::http_base_url;
use crate::cors::{self, CorsOrigins};
use crate::setting;
use crate::source::Sources;

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4376);
const DEFAULT_DATA_DIR: &str = "./herm-data";
const DEFAULT_MAX_FILE_BYTES: u64 = 100 * 1024 * 1024;
/// The maximum size of a file on Linux, in bytes. `max_file_bytes` cannot be larger.
const LARGEST_FILE_BYTES: u64 = i64::MAX as u64;
const DEFAULT_MAX_JSON_BYTES: usize = 1024 * 1024;
/// The allowed range of `max_json_bytes`. The minimum leaves room for the prompt of a deployment. The maximum
/// protects the memory of the server, because each body is read into memory as a whole.
const JSON_BYTES: RangeInclusive<u64> = 16 * 1024..=64 * 1024 * 1024;
/// The allowed range of `event_retention_days`. The maximum, a hundred years, is practically unlimited.
const RETENTION_DAYS: RangeInclusive<u64> = 1..=36_500;
const ADDRESS: &str = "IP:PORT, for example 127.0.0.1:4376 or [::]:4376";

/// The addresses, directories and limits of the server.
#[derive(Clone, Debug)]
pub struct Server {
    /// The address on which the API listens. With port 0 the system chooses a free port.
    pub listen: SocketAddr,
    /// The address on which `/metrics` is served, without authentication. With `None`, it is not served.
    pub metrics_listen: Option<SocketAddr>,
    /// The directory for all data of the server. A relative path is relative to the working directory.
    pub data_dir: PathBuf,
    /// The base of absolute URLs in responses, without a trailing `/`. With `None`, these URLs use the host
    /// of the request.
    pub public_url: Option<String>,
    /// The maximum number of requests per second for each API key. Further requests are answered with 429.
    /// `None` means unlimited.
    pub rate_limit: Option<NonZeroU32>,
    /// The web origins from which browsers may call the API (CORS).
    pub cors_origins: CorsOrigins,
    /// The maximum size of a JSON request body, in bytes. Larger bodies are rejected.
    pub max_json_bytes: usize,
    /// True to check credits before each model call. Has no effect in this version.
    pub metering: bool,
    /// The maximum size of a file that is written through the API, in bytes. Larger files are rejected.
    pub max_file_bytes: u64,
    /// The number of days after which events are deleted. With `None`, they are stored as long as their
    /// deployment exists.
    pub event_retention_days: Option<u32>,
}

impl Server {
    pub(crate) fn load(sources: &Sources<'_>) -> Result<Self, Error> {
        let address = |setting| sources.text(setting)?.map(|raw| raw.parse(ADDRESS)).transpose();
        let data_dir = match sources.text(&setting::DATA_DIR)? {
            Some(raw) if raw.value.is_empty() => {
                return Err(raw.invalid("the path is empty; expected the path of a directory"));
            }
            Some(raw) => raw.value.into(),
            None => DEFAULT_DATA_DIR.into(),
        };
        let metering = sources
            .text(&setting::METERING)?
            .map(|raw| raw.choose(&[("off", false), ("on", true)]))
            .transpose()?
            .unwrap_or(false);
        let max_file_bytes = sources
            .text(&setting::MAX_FILE_BYTES)?
            .map(|raw| raw.number(1..=LARGEST_FILE_BYTES))
            .transpose()?
            .unwrap_or(DEFAULT_MAX_FILE_BYTES);
        Ok(Self {
            listen: address(&setting::LISTEN)?.unwrap_or(DEFAULT_LISTEN),
            metrics_listen: address(&setting::METRICS_LISTEN)?,
            data_dir,
            public_url: sources.text(&setting::PUBLIC_URL)?.map(|raw| http_base_url(&raw)).transpose()?,
            rate_limit: rate_limit(sources)?,
            cors_origins: cors::load(sources)?,
            max_json_bytes: max_json_bytes(sources)?,
            metering,
            max_file_bytes,
            event_retention_days: event_retention_days(sources)?,
        })
    }
}

fn rate_limit(sources: &Sources<'_>) -> Result<Option<NonZeroU32>, Error> {
    let Some(raw) = sources.text(&setting::RATE_LIMIT)? else { return Ok(None) };
    if raw.value == "off" {
        return Ok(None);
    }
    let limit: u32 = raw.parse("`off` or a whole number of requests per second, at least 1")?;
    match NonZeroU32::new(limit) {
        None => Err(raw.invalid("0 would refuse every request; use `off` for no limit")),
        limit => Ok(limit),
    }
}

fn event_retention_days(sources: &Sources<'_>) -> Result<Option<u32>, Error> {
    let Some(raw) = sources.text(&setting::EVENT_RETENTION_DAYS)? else { return Ok(None) };
    if raw.value == "off" {
        return Ok(None);
    }
    let days = raw.number(RETENTION_DAYS)?;
    u32::try_from(days).map(Some).map_err(|_| raw.invalid("the number of days is too large"))
}

fn max_json_bytes(sources: &Sources<'_>) -> Result<usize, Error> {
    let Some(raw) = sources.text(&setting::MAX_JSON_BYTES)? else { return Ok(DEFAULT_MAX_JSON_BYTES) };
    let bytes = raw.number(JSON_BYTES)?;
    usize::try_from(bytes).map_err(|_| raw.invalid("the size is too large for this machine"))
}
