//! Limits the request rate of each API key, separately for reads, writes and opening streams. Requests without a valid
//! key are limited by IP address.
//!
//! For each client that it has recently seen, a limiter stores an entry: a timestamp that determines when the client
//! may send the next request. Pruning removes the entries of clients that may again send a full burst, because these
//! entries no longer have an effect. A limiter never stores more than about [`MAX_TRACKED`] entries.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use herm_types::{Error, ErrorCode, KeyId};
use http::Method;
use http::request::Parts;
use tokio::time::Instant;

use crate::auth;
use crate::error::Failure;
use crate::events::accepts_json;
use crate::router::ApiState;

/// The maximum number of keys and IP addresses that one limiter tracks individually. When it is reached, the limiter
/// forgets clients that may again send a full burst. If that does not make room, all requests count toward one shared
/// quota until there is room again.
const MAX_TRACKED: usize = 100_000;
/// The minimum time between two prunes of a limiter. Pruning is expensive, because it scans all entries.
const PRUNE_INTERVAL: Duration = Duration::from_secs(1);
/// The rate limit for opening event streams is the rate limit for other requests divided by this number. A lower limit
/// suffices, because a client opens a stream once and keeps it open.
const STREAM_DIVISOR: u32 = 2;

/// The client whose requests count toward a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Client {
    Key(KeyId),
    Address(IpAddr),
    /// All clients together. They share this one quota while the limiter is full.
    Overflow,
}

/// The rate limiters of the three classes of requests: reads, writes and opening streams.
pub(crate) struct RateLimits {
    read: Limiter,
    write: Limiter,
    stream: Limiter,
}

impl RateLimits {
    /// Creates the limiters. Each client may send `per_second` reads and `per_second` writes per second, and may send
    /// them all in one burst. It may open fewer streams per second (see [`STREAM_DIVISOR`]).
    pub(crate) fn new(per_second: NonZeroU32) -> Self {
        let stream = per_second.get().div_ceil(STREAM_DIVISOR);
        Self {
            read: Limiter::new(per_second),
            write: Limiter::new(per_second),
            stream: Limiter::new(NonZeroU32::new(stream).unwrap_or(per_second)),
        }
    }

    /// Returns the limiter that applies to a request. Returns `None` for requests without a limit: preflight requests,
    /// and paths outside `/v1`.
    fn limiter_for(&self, parts: &Parts) -> Option<&Limiter> {
        let path = parts.uri.path();
        if !path.starts_with("/v1/") || parts.method == Method::OPTIONS {
            return None;
        }
        let is_read = parts.method == Method::GET || parts.method == Method::HEAD;
        Some(if !is_read {
            &self.write
        } else if path.ends_with("/events") && !accepts_json(&parts.headers) {
            &self.stream
        } else {
            &self.read
        })
    }
}

/// Rejects requests that exceed the rate limit of their key or IP address.
pub(crate) async fn layer(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let Some(limits) = state.rate_limits.clone() else { return next.run(request).await };
    let (mut parts, body) = request.into_parts();
    if let Some(limiter) = limits.limiter_for(&parts) {
        let client = match auth::caller(&mut parts, &state).await {
            Ok(caller) => Client::Key(caller.key().key_id),
            Err(_) => Client::Address(address(&parts)),
        };
        if let Err(wait) = limiter.check(client) {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            let message = format!("Too many requests; retry after {} seconds.", seconds.max(1));
            let failure = Failure::from(Error::new(ErrorCode::RateLimited, message));
            return failure.retry_after(seconds.max(1)).into_response();
        }
    }
    next.run(Request::from_parts(parts, body)).await
}

/// Returns the IP address whose quota is used for a request without a valid key. For an IPv6 client, this is the
/// address of the /64 network, because a client usually controls all addresses of its /64 network.
fn address(parts: &Parts) -> IpAddr {
    let address = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip().to_canonical());
    match address {
        Some(IpAddr::V6(address)) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        Some(address) => address,
        None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    }
}

/// The rate limiter of one class of requests.
struct Limiter {
    cells: RateLimiter<Client, HashMapStateStore<Client>, MonotonicClock, NoOpMiddleware<Duration>>,
    max_tracked: usize,
    pruned_at: Mutex<Duration>,
}

impl Limiter {
    fn new(per_second: NonZeroU32) -> Self {
        let clock = MonotonicClock(Instant::now());
        let cells = RateLimiter::new(Quota::per_second(per_second), HashMapStateStore::default(), clock);
        Self { cells, max_tracked: MAX_TRACKED, pruned_at: Mutex::default() }
    }

    /// Counts a request toward the quota of a client.
    ///
    /// # Errors
    /// If the request exceeds the rate limit, returns the time for which the client must wait before it sends the
    /// request again.
    fn check(&self, client: Client) -> Result<(), Duration> {
        let client = if self.has_room() { client } else { Client::Overflow };
        self.cells.check_key(&client).map_err(|until| until.wait_time_from(self.cells.clock().now()))
    }
}

impl Limiter {
    fn has_room(&self) -> bool {
        if self.cells.len() < self.max_tracked {
            return true;
        }
        let now = self.cells.clock().now();
        let mut pruned_at = self.pruned_at.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_sub(*pruned_at) >= PRUNE_INTERVAL {
            *pruned_at = now;
            self.cells.retain_recent();
        }
        self.cells.len() < self.max_tracked
    }
}

/// A clock for the limiters that is unaffected by changes to the system time. It measures the time since its creation.
#[derive(Clone, Debug)]
struct MonotonicClock(Instant);

impl Clock for MonotonicClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use herm_types::id::Id as _;
    use http::Request;

    use super::*;

    fn key(number: u128) -> Client {
        Client::Key(KeyId::from_bits(number))
    }

    #[tokio::test(start_paused = true)]
    async fn a_limited_key_may_continue_after_the_wait_and_other_keys_are_unaffected() {
        let limiter = Limiter::new(NonZeroU32::new(2).unwrap());
        assert!(limiter.check(key(1)).is_ok() && limiter.check(key(1)).is_ok());
        let wait = limiter.check(key(1)).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_millis(500), "{wait:?}");
        assert!(limiter.check(key(2)).is_ok());
        tokio::time::advance(wait).await;
        assert!(limiter.check(key(1)).is_ok());
    }

    #[test]
    fn the_address_is_the_peers_ip_or_its_ipv6_network() {
        let address_of = |peer: &str| {
            let mut parts = Request::new(()).into_parts().0;
            parts.extensions.insert(ConnectInfo(peer.parse::<SocketAddr>().unwrap()));
            address(&parts).to_string()
        };
        assert_eq!(address_of("203.0.113.9:5000"), "203.0.113.9");
        assert_eq!(address_of("[2001:db8:1:2:3:4:5:6]:5000"), "2001:db8:1:2::");
        assert_eq!(address_of("[::ffff:203.0.113.9]:5000"), "203.0.113.9");
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_tracked_keys_is_limited() {
        let mut limiter = Limiter::new(NonZeroU32::new(1).unwrap());
        limiter.max_tracked = 1000;
        for number in 0..5000 {
            // The result is ignored: this test only checks that the limiter does not grow beyond its limit.
            let _ = limiter.check(key(number));
        }
        assert!(limiter.cells.len() <= 1001, "{}", limiter.cells.len());
        assert!(limiter.check(key(9999)).is_err(), "while the limiter is full, all keys share one quota");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(limiter.check(key(9999)).is_ok());
        assert!(limiter.cells.len() <= 2, "{}", limiter.cells.len());
    }
}
