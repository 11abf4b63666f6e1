//! Limits the request rate of each API key, separately for reads, writes and opening streams. Requests without a valid
//! key are limited by IP address.

pub(crate) mod limits;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use herm_types::{Error, ErrorCode};
use http::Method;
use http::request::Parts;

use crate::auth;
use crate::error::Failure;
use crate::events::accepts_json;
use crate::state::ApiState;
use limits::{Client, Limiter, RateLimits};

/// Rejects requests that exceed the rate limit of their key or IP address.
pub(crate) async fn layer(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let Some(limits) = state.rate_limits.clone() else { return next.run(request).await };
    let (mut parts, body) = request.into_parts();
    if let Some(limiter) = limiter_for(&limits, &parts) {
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

/// Returns the limiter that applies to a request. Returns `None` for requests without a limit: preflight requests,
/// and paths outside `/v1`.
fn limiter_for<'l>(limits: &'l RateLimits, parts: &Parts) -> Option<&'l Limiter> {
    let path = parts.uri.path();
    if !path.starts_with("/v1/") || parts.method == Method::OPTIONS {
        return None;
    }
    let is_read = parts.method == Method::GET || parts.method == Method::HEAD;
    Some(if !is_read {
        &limits.write
    } else if path.ends_with("/events") && !accepts_json(&parts.headers) {
        &limits.stream
    } else {
        &limits.read
    })
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

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

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
}
