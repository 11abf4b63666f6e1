//! Fetches documents from URLs that API clients supply, with limits on time, size and addresses.

use std::error::Error as _;
use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::header::LOCATION;
use reqwest::{Client, Response};
use rustls::ClientConfig;
use url::{Host, Url};

use crate::AllowedAddresses;
use crate::address::PrivateAddress;

/// The maximum number of redirects that a fetch follows. After more redirects, the fetch fails.
pub const MAX_REDIRECTS: usize = 5;
/// The maximum total time of a fetch, including redirects. If it takes longer, it fails.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// The maximum time for establishing one connection. If it takes longer, the host counts as unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The reason why a fetch failed. The message reveals nothing about the server's network except this reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("only http and https URLs without user name and password are supported")]
    UnsupportedUrl,
    #[error("{host} has a private address, which this server is not allowed to reach")]
    PrivateAddress { host: String },
    #[error("the URL redirects from https to http")]
    Downgraded,
    #[error("the URL redirects more than {MAX_REDIRECTS} times")]
    TooManyRedirects,
    #[error("the URL redirects without a valid location")]
    InvalidRedirect,
    #[error("the host cannot be reached")]
    Unreachable,
    #[error("the response has status {0}")]
    Status(u16),
    #[error("the document is larger than {limit_bytes} bytes")]
    TooLarge { limit_bytes: usize },
    #[error("the request took longer than {} s", TIMEOUT.as_secs())]
    Timeout,
}

/// Fetches documents from URLs that API clients supply, with limits on time, size and addresses.
#[derive(Clone, Debug)]
pub struct Fetcher {
    client: Client,
    allowed: AllowedAddresses,
}

impl Fetcher {
    /// Creates a fetcher that connects only to `allowed` addresses and uses the TLS configuration `tls`.
    ///
    /// # Errors
    /// Fails if the HTTP client cannot be created.
    pub fn new(allowed: AllowedAddresses, tls: ClientConfig) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .dns_resolver(allowed.clone())
            // Use no proxy: it would resolve the host name itself and could connect to a private address.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(0)
            .user_agent(concat!("herm/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client, allowed })
    }

    /// Fetches the document at `url`. Fails if it has more than `limit_bytes` bytes.
    pub async fn get(&self, url: &Url, limit_bytes: usize) -> Result<Vec<u8>, Error> {
        let fetched = tokio::time::timeout(TIMEOUT, async {
            let response = self.follow(url.clone()).await?;
            read(response, limit_bytes).await
        });
        fetched.await.unwrap_or(Err(Error::Timeout))
    }

    async fn follow(&self, mut url: Url) -> Result<Response, Error> {
        for _ in 0..=MAX_REDIRECTS {
            self.check(&url)?;
            let response =
                self.client.get(url.clone()).send().await.map_err(|error| send_error(&error, &url))?;
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            if !status.is_redirection() {
                return Err(Error::Status(status.as_u16()));
            }
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            let next = location.and_then(|location| url.join(location).ok()).ok_or(Error::InvalidRedirect)?;
            if url.scheme() == "https" && next.scheme() == "http" {
                return Err(Error::Downgraded);
            }
            url = next;
        }
        Err(Error::TooManyRedirects)
    }

    /// Checks the scheme, the credentials and the address of a URL. The resolver checks the addresses of host
    /// names, but it is not called for a host that is an IP address, so that address is checked here.
    fn check(&self, url: &Url) -> Result<(), Error> {
        if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some()
        {
            return Err(Error::UnsupportedUrl);
        }
        let (host, address) = match url.host() {
            None => return Err(Error::UnsupportedUrl),
            Some(Host::Domain(_)) => return Ok(()),
            Some(Host::Ipv4(address)) => (address.to_string(), address.into()),
            Some(Host::Ipv6(address)) => (address.to_string(), address.into()),
        };
        if self.allowed.allows(&host, address) { Ok(()) } else { Err(Error::PrivateAddress { host }) }
    }
}

fn send_error(error: &reqwest::Error, url: &Url) -> Error {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<PrivateAddress>() {
            return Error::PrivateAddress { host: url.host_str().unwrap_or_default().to_owned() };
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
