//! Names resolved, and connections made to exactly the addresses that were checked.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::net::TcpStream;

/// The addresses of a name that are considered; a name that has more is reached at the first ones.
pub(crate) const MAX_ADDRESSES: usize = 16;
/// How long an address may take before the next one is tried beside it, so that a network without a way for IPv6 costs
/// little (RFC 8305).
const HEAD_START: Duration = Duration::from_millis(250);

/// Where names become addresses.
pub trait Resolver: Send + Sync + 'static {
    /// The addresses of a host, the best first. The name is in lower case and has no dot at its end.
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// The machine's own way.
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

/// Connects to whichever of these answers first. The caller bounds how long it takes.
pub(crate) async fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut waiting = addresses.iter();
    let mut under_way = FuturesUnordered::new();
    let mut last_error = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        match waiting.next() {
            Some(address) => under_way.push(TcpStream::connect(*address)),
            None if under_way.is_empty() => return Err(last_error),
            None => {}
        }
        tokio::select! {
            Some(ended) = under_way.next() => match ended {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) => last_error = error,
            },
            () = tokio::time::sleep(HEAD_START), if waiting.len() > 0 => {}
        }
    }
}
