//! `…/events`: streamed, or listed for who asks for JSON.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use herm_app::events;
use herm_types::DeploymentId;
use herm_types::error::ErrorBody;
use herm_types::event::{EVENT_TYPES, EventFilter, EventItem, StoredEvent};
use herm_types::id::EventId;
use herm_types::paging::Page;
use herm_types::{Error, ErrorCode, RunId, ThreadId};
use http::header::ACCEPT;
use http::{HeaderMap, HeaderName};
use serde_json::value::RawValue;

use crate::auth::Auth;
use crate::error::Failure;
use crate::input::{DeploymentPath, Query};
use crate::router::Shared;
use crate::sse;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Stream everything the agent does, as server-sent events; with `Accept: application/json`, list what is stored,
/// oldest first.
#[utoipa::path(get, path = "/v1/deployments/{deployment_id}/events", operation_id = "stream_events", tag = "events",
    params(("deployment_id" = DeploymentId, Path), ("thread_id" = Option<ThreadId>, Query),
        ("run_id" = Option<RunId>, Query),
        ("types" = Option<String>, Query, description = "Event types, separated by commas."),
        ("after" = Option<String>, Query, description = "An event id: everything after it. evt_0: from the start."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "Of a listing."),
        ("cursor" = Option<String>, Query, description = "Of a listing."),
        ("Last-Event-ID" = Option<String>, Header, description = "As after; goes before it.")),
    responses((status = 200, body = Page<EventItem>, content_type = "application/json"),
        (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn stream_events(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: DeploymentPath,
    mut query: Query,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let filter = EventFilter {
        thread_id: query.parse("thread_id"),
        run_id: query.parse("run_id"),
        types: types(&mut query),
    };
    let after = query.parse::<EventId>("after");
    if wants_json(&headers) {
        let limit = query.page::<EventId>();
        query.finish()?;
        let cursor = limit.after.and_then(|cursor| cursor.parse().ok());
        let after = cursor.or(after).unwrap_or(EventId(0));
        let listing =
            events::list(&shared.app, &caller, path.deployment_id, filter, after, limit.limit as usize)
                .await?;
        return Ok(Json(page(listing)?).into_response());
    }
    query.finish()?;
    let after = last_event_id(&headers)?.or(after);
    let subscription = events::subscribe(&shared.app, &caller, path.deployment_id, filter, after).await?;
    Ok(sse::response(subscription, shared.app.draining().clone()))
}

pub(crate) fn wants_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    accept.contains("application/json") && !accept.contains("text/event-stream")
}

fn types(query: &mut Query) -> Vec<String> {
    let Some(text) = query.text("types") else { return Vec::new() };
    let types: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    for unknown in types.iter().filter(|name| !EVENT_TYPES.contains(&name.as_str())) {
        query.fault(
            "types",
            format!("{unknown:?} is not an event type; there are {}", EVENT_TYPES.join(", ")),
        );
    }
    types
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<EventId>, Error> {
    let Some(value) = headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty()) else { return Ok(None) };
    let parsed = value.to_str().ok().and_then(|text| text.parse().ok());
    let refused =
        || Error::new(ErrorCode::ValidationError, "Last-Event-ID: expected an event id such as evt_42.");
    parsed.map(Some).ok_or_else(refused)
}

fn page(listing: events::Listing) -> Result<Page<EventItem>, Error> {
    let item = |event: StoredEvent| {
        let data = RawValue::from_string(event.data.to_string()).map_err(|error| {
            tracing::error!(%error, event_id = %event.event_id, "a stored event is not JSON");
            Error::new(ErrorCode::ServerError, "A stored event cannot be read.")
        })?;
        let id = event.event_id.to_string();
        Ok(EventItem { id, event: event.event.to_string(), data, created_at: event.created_at })
    };
    let data = listing.events.into_iter().map(item).collect::<Result<_, Error>>()?;
    Ok(Page { data, next_cursor: listing.next_after.map(|id| id.to_string()) })
}
