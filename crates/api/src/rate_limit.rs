//! Requests a second: each key has its own, in three classes; who has no key shares with its address.
//!
//! A limiter keeps one instant for each key that asked lately, and forgets it as soon as it says nothing any more. What
//! is kept is thereby bounded by the requests of the last moments, and by [`MAX_TRACKED`] in any case.

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
use crate::events::wants_json;
use crate::router::Shared;

/// Keys and addresses that one class keeps at most. Above it those that say nothing any more are forgotten; if that
/// does not help, newcomers share one allowance.
const MAX_TRACKED: usize = 100_000;
/// Between two looks for what to forget: each goes through all that is kept.
const FORGET_EVERY: Duration = Duration::from_secs(1);
/// New streams a second, as a part of the limit: one is opened once and then held.
const STREAM_DIVISOR: u32 = 2;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Who {
    Key(KeyId),
    Address(IpAddr),
    /// All for whom there is no room.
    Everybody,
}

/// The limiters of all classes.
pub(crate) struct RateLimits {
    read: Limiter,
    write: Limiter,
    stream: Limiter,
}

impl RateLimits {
    /// Each class allows a burst of what it allows in a second.
    pub(crate) fn new(per_second: NonZeroU32) -> Self {
        let stream = per_second.get().div_ceil(STREAM_DIVISOR);
        Self {
            read: Limiter::new(per_second),
            write: Limiter::new(per_second),
            stream: Limiter::new(NonZeroU32::new(stream).unwrap_or(per_second)),
        }
    }

    /// The limiter that a request counts for; `None`: it counts for none.
    fn of(&self, parts: &Parts) -> Option<&Limiter> {
        let path = parts.uri.path();
        if !path.starts_with("/v1/") || parts.method == Method::OPTIONS {
            return None;
        }
        let is_read = parts.method == Method::GET || parts.method == Method::HEAD;
        Some(if !is_read {
            &self.write
        } else if path.ends_with("/events") && !wants_json(&parts.headers) {
            &self.stream
        } else {
            &self.read
        })
    }
}

/// Refuses what comes too fast.
pub(crate) async fn layer(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let Some(limits) = shared.rate_limits.clone() else { return next.run(request).await };
    let (mut parts, body) = request.into_parts();
    if let Some(limiter) = limits.of(&parts) {
        let who = match auth::caller(&mut parts, &shared).await {
            Ok(caller) => Who::Key(caller.key().key_id),
            Err(_) => Who::Address(address(&parts)),
        };
        if let Err(wait) = limiter.check(who) {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            let message = format!("Too many requests; come back in {} s, or send fewer.", seconds.max(1));
            let failure = Failure::from(Error::new(ErrorCode::RateLimited, message));
            return failure.retry_after(seconds.max(1)).into_response();
        }
    }
    next.run(Request::from_parts(parts, body)).await
}

/// The address of the connection. Of IPv6 the network: who has one has all of its addresses.
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

/// One class.
struct Limiter {
    cells: RateLimiter<Who, HashMapStateStore<Who>, Steady, NoOpMiddleware<Duration>>,
    max_tracked: usize,
    forgot_at: Mutex<Duration>,
}

impl Limiter {
    fn new(per_second: NonZeroU32) -> Self {
        let clock = Steady(Instant::now());
        let cells = RateLimiter::new(Quota::per_second(per_second), HashMapStateStore::default(), clock);
        Self { cells, max_tracked: MAX_TRACKED, forgot_at: Mutex::default() }
    }

    /// Counts a request.
    ///
    /// # Errors
    /// It came too fast: how long to wait.
    fn check(&self, who: Who) -> Result<(), Duration> {
        let who = if self.has_room() { who } else { Who::Everybody };
        self.cells.check_key(&who).map_err(|until| until.wait_time_from(self.cells.clock().now()))
    }
}

impl Limiter {
    fn has_room(&self) -> bool {
        if self.cells.len() < self.max_tracked {
            return true;
        }
        let now = self.cells.clock().now();
        let mut forgot_at = self.forgot_at.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_sub(*forgot_at) >= FORGET_EVERY {
            *forgot_at = now;
            self.cells.retain_recent();
        }
        self.cells.len() < self.max_tracked
    }
}

/// Time since the server's start, which no change of the machine's clock touches.
#[derive(Clone, Debug)]
struct Steady(Instant);

impl Clock for Steady {
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

    fn key(number: u128) -> Who {
        Who::Key(KeyId::from_bits(number))
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_pauses_may_go_on_and_others_never_notice() {
        let limiter = Limiter::new(NonZeroU32::new(2).unwrap());
        assert!(limiter.check(key(1)).is_ok() && limiter.check(key(1)).is_ok());
        let wait = limiter.check(key(1)).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_millis(500), "{wait:?}");
        assert!(limiter.check(key(2)).is_ok());
        tokio::time::advance(wait).await;
        assert!(limiter.check(key(1)).is_ok());
    }

    #[test]
    fn an_address_is_that_of_the_connection_and_of_ipv6_the_network() {
        let of = |peer: &str| {
            let mut parts = Request::new(()).into_parts().0;
            parts.extensions.insert(ConnectInfo(peer.parse::<SocketAddr>().unwrap()));
            address(&parts).to_string()
        };
        assert_eq!(of("203.0.113.9:5000"), "203.0.113.9");
        assert_eq!(of("[2001:db8:1:2:3:4:5:6]:5000"), "2001:db8:1:2::");
        assert_eq!(of("[::ffff:203.0.113.9]:5000"), "203.0.113.9");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_of_many_keys_is_bounded() {
        let mut limiter = Limiter::new(NonZeroU32::new(1).unwrap());
        limiter.max_tracked = 1000;
        for number in 0..5000 {
            // Whether those for whom there is no room are let through is not the point here.
            let _ = limiter.check(key(number));
        }
        assert!(limiter.cells.len() <= 1001, "{}", limiter.cells.len());
        assert!(limiter.check(key(9999)).is_err(), "newcomers share one allowance");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(limiter.check(key(9999)).is_ok());
        assert!(limiter.cells.len() <= 2, "{}", limiter.cells.len());
    }
}
