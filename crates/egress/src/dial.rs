//! Resolves host names, and connects only to IP addresses that the caller has checked.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::net::TcpStream;

/// The maximum number of IP addresses that are tried for one host name. Further addresses are ignored.
pub(crate) const MAX_ADDRESSES: usize = 16;
/// The delay after which the next address is tried while the previous attempt is still in progress (RFC 8305, section
/// 5). It is short, so that a broken IPv6 route does not delay the connection much.
const CONNECTION_ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Resolves host names to IP addresses.
pub trait Resolver: Send + Sync + 'static {
    /// Returns the IP addresses of a host, in order of preference. `host` is in lower case without a trailing dot.
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// The DNS resolver of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((host, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// Connects to one of the addresses. Starts the attempts one after the other, with a short delay between them, and
/// returns the first stream that is established. The caller must apply a timeout.
pub(crate) async fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut remaining = addresses.iter();
    let mut attempts = FuturesUnordered::new();
    let mut last_error = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        match remaining.next() {
            Some(address) => attempts.push(TcpStream::connect(*address)),
            None if attempts.is_empty() => return Err(last_error),
            None => {}
        }
        tokio::select! {
            Some(result) = attempts.next() => match result {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) => last_error = error,
            },
            () = tokio::time::sleep(CONNECTION_ATTEMPT_DELAY), if remaining.len() > 0 => {}
        }
    }
}
