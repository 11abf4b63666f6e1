//! Addresses, directories and limits of the server.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use crate::Error;
use crate::address::http_base;
use crate::cors::{self, CorsOrigins};
use crate::setting;
use crate::source::Sources;

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4376);
const DEFAULT_DATA_DIR: &str = "./herm-data";
const DEFAULT_MAX_FILE_BYTES: u64 = 100 * 1024 * 1024;
/// The largest file that Linux knows.
const LARGEST_FILE_BYTES: u64 = i64::MAX as u64;
const DEFAULT_MAX_JSON_BYTES: usize = 1024 * 1024;
/// What a JSON body may be limited to, in bytes: it must hold a deployment's prompt, and is read into memory whole.
const JSON_BYTES: RangeInclusive<u64> = 16 * 1024..=64 * 1024 * 1024;
/// How many days events may be kept; a hundred years are for ever.
const RETENTION_DAYS: RangeInclusive<u64> = 1..=36_500;
const ADDRESS: &str = "IP:PORT, such as 127.0.0.1:4376 or [::]:4376";

/// Addresses, directories and limits of the server.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where the API is served; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where `/metrics` is served without a key, if anywhere.
    pub metrics_listen: Option<SocketAddr>,
    /// Where everything the server keeps on disk lies; relative to the working directory.
    pub data_dir: PathBuf,
    /// Prefix of absolute URLs in responses, without a last `/`; `None`: the request's host is used.
    pub public_url: Option<String>,
    /// Requests a second that each API key may make; `None`: any number.
    pub rate_limit: Option<NonZeroU32>,
    /// Whose scripts may call the API from a browser.
    pub cors_origins: CorsOrigins,
    /// The most bytes of a JSON body.
    pub max_json_bytes: usize,
    /// Whether credits are checked.
    pub metering: bool,
    /// Bytes of a file that is written through the API, at most.
    pub max_file_bytes: u64,
    /// Days for which events are kept; `None`: as long as their deployment.
    pub event_retention_days: Option<u32>,
}

impl Server {
    pub(crate) fn load(sources: &Sources<'_>) -> Result<Self, Error> {
        let address = |setting| sources.text(setting)?.map(|found| found.parse(ADDRESS)).transpose();
        let data_dir = match sources.text(&setting::DATA_DIR)? {
            Some(found) if found.value.is_empty() => {
                return Err(found.invalid("write the path of a directory"));
            }
            Some(found) => found.value.into(),
            None => DEFAULT_DATA_DIR.into(),
        };
        let metering = sources
            .text(&setting::METERING)?
            .map(|found| found.choose(&[("off", false), ("on", true)]))
            .transpose()?
            .unwrap_or(false);
        let max_file_bytes = sources
            .text(&setting::MAX_FILE_BYTES)?
            .map(|found| found.number(1..=LARGEST_FILE_BYTES))
            .transpose()?
            .unwrap_or(DEFAULT_MAX_FILE_BYTES);
        Ok(Self {
            listen: address(&setting::LISTEN)?.unwrap_or(DEFAULT_LISTEN),
            metrics_listen: address(&setting::METRICS_LISTEN)?,
            data_dir,
            public_url: sources.text(&setting::PUBLIC_URL)?.map(|found| http_base(&found)).transpose()?,
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
    let Some(found) = sources.text(&setting::RATE_LIMIT)? else { return Ok(None) };
    if found.value == "off" {
        return Ok(None);
    }
    let limit: u32 = found.parse("`off` or a whole number of requests a second, at least 1")?;
    match NonZeroU32::new(limit) {
        None => Err(found.invalid("0 would refuse every request; write `off` for no limit")),
        limit => Ok(limit),
    }
}

fn event_retention_days(sources: &Sources<'_>) -> Result<Option<u32>, Error> {
    let Some(found) = sources.text(&setting::EVENT_RETENTION_DAYS)? else { return Ok(None) };
    if found.value == "off" {
        return Ok(None);
    }
    let days = found.number(RETENTION_DAYS)?;
    u32::try_from(days).map(Some).map_err(|_| found.invalid("it is more days than can be counted"))
}

fn max_json_bytes(sources: &Sources<'_>) -> Result<usize, Error> {
    let Some(found) = sources.text(&setting::MAX_JSON_BYTES)? else { return Ok(DEFAULT_MAX_JSON_BYTES) };
    let bytes = found.number(JSON_BYTES)?;
    usize::try_from(bytes).map_err(|_| found.invalid("it is more than this machine can address"))
}
