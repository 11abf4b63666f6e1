//! Getting a document.

use std::error::Error as _;
use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::header::LOCATION;
use reqwest::{Client, Response};
use rustls::ClientConfig;
use url::{Host, Url};

use crate::Allowed;
use crate::address::PrivateAddress;

/// Redirects that are followed.
pub const MAX_REDIRECTS: usize = 5;
/// How long a document may take, redirects included.
pub const TIME_LIMIT: Duration = Duration::from_secs(10);
/// How long a connection may take to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Why a document could not be had. Says nothing of what else is at the address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("only http and https addresses without a user name are fetched")]
    Address,
    #[error("{host} is a private address, which this server does not reach")]
    Private { host: String },
    #[error("it redirects from https to http, which is not followed")]
    Downgraded,
    #[error("it redirects more than {MAX_REDIRECTS} times")]
    Redirects,
    #[error("it redirects without saying where to")]
    LostRedirect,
    #[error("it could not be reached")]
    Unreachable,
    #[error("it answered with status {0}")]
    Status(u16),
    #[error("it is larger than {limit_bytes} bytes")]
    TooLarge { limit_bytes: usize },
    #[error("it took longer than {} s", TIME_LIMIT.as_secs())]
    Slow,
}

/// Gets documents; cheap to clone.
#[derive(Clone, Debug)]
pub struct Fetcher {
    client: Client,
    allowed: Allowed,
}

impl Fetcher {
    /// `tls`: whom it trusts.
    ///
    /// # Errors
    /// The client cannot be made.
    pub fn new(allowed: Allowed, tls: ClientConfig) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .dns_resolver(allowed.clone())
            // A proxy would resolve the name anew, and reach what this must not.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_LIMIT)
            .pool_max_idle_per_host(0)
            .user_agent(concat!("herm/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client, allowed })
    }

    /// The bytes of the document at `url`, at most `limit_bytes`.
    pub async fn get(&self, url: &Url, limit_bytes: usize) -> Result<Vec<u8>, Error> {
        let fetched = tokio::time::timeout(TIME_LIMIT, async {
            let response = self.follow(url.clone()).await?;
            read(response, limit_bytes).await
        });
        fetched.await.unwrap_or(Err(Error::Slow))
    }

    async fn follow(&self, mut url: Url) -> Result<Response, Error> {
        for _ in 0..=MAX_REDIRECTS {
            self.check(&url)?;
            let response = self.client.get(url.clone()).send().await.map_err(|error| failed(&error, &url))?;
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            if !status.is_redirection() {
                return Err(Error::Status(status.as_u16()));
            }
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            let next = location.and_then(|location| url.join(location).ok()).ok_or(Error::LostRedirect)?;
            if url.scheme() == "https" && next.scheme() == "http" {
                return Err(Error::Downgraded);
            }
            url = next;
        }
        Err(Error::Redirects)
    }

    /// An address that is written as a number is not resolved, so it is checked here.
    fn check(&self, url: &Url) -> Result<(), Error> {
        if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some()
        {
            return Err(Error::Address);
        }
        let (host, address) = match url.host() {
            None => return Err(Error::Address),
            Some(Host::Domain(_)) => return Ok(()),
            Some(Host::Ipv4(address)) => (address.to_string(), address.into()),
            Some(Host::Ipv6(address)) => (address.to_string(), address.into()),
        };
        if self.allowed.allows(&host, address) { Ok(()) } else { Err(Error::Private { host }) }
    }
}

fn failed(error: &reqwest::Error, url: &Url) -> Error {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<PrivateAddress>() {
            return Error::Private { host: url.host_str().unwrap_or_default().to_owned() };
        }
        cause = error.source();
    }
    Error::Unreachable
}

async fn read(response: Response, limit_bytes: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let mut pieces = response.bytes_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| Error::Unreachable)?;
        if bytes.len() + piece.len() > limit_bytes {
            return Err(Error::TooLarge { limit_bytes });
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}
