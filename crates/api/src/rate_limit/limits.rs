//! Counts requests toward the quotas of API keys and IP addresses.
//!
//! For each client that it has recently seen, a limiter stores an entry: a timestamp that determines when the client
//! may send the next request. Pruning removes the entries of clients that may again send a full burst, because these
//! entries no longer have an effect. A limiter never stores more than about [`MAX_TRACKED`] entries.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use herm_types::KeyId;
use tokio::time::Instant;

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
pub(crate) enum Client {
    Key(KeyId),
    Address(IpAddr),
    /// All clients together. They share this one quota while the limiter is full.
    Overflow,
}

/// The rate limiters of the three classes of requests: reads, writes and opening streams.
pub(crate) struct RateLimits {
    pub(super) read: Limiter,
    pub(super) write: Limiter,
    pub(super) stream: Limiter,
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
}

/// The rate limiter of one class of requests.
pub(crate) struct Limiter {
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
    pub(super) fn check(&self, client: Client) -> Result<(), Duration> {
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
