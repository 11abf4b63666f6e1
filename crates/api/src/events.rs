//! `…/events`: streams a deployment's events, or lists them if the client sends `Accept: application/json`.

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
use crate::sse;
use crate::state::ApiState;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Stream a deployment's events as server-sent events.
///
/// If the request has the header `Accept: application/json`, the response is instead a page of the stored events,
/// oldest first.
#[utoipa::path(get, path = "/v1/deployments/{deployment_id}/events", operation_id = "stream_events", tag = "events",
    params(("deployment_id" = DeploymentId, Path), ("thread_id" = Option<ThreadId>, Query),
        ("run_id" = Option<RunId>, Query),
        ("types" = Option<String>, Query, description = "The event types to return, separated by commas. All types by default."),
        ("after" = Option<String>, Query, description = "Return only events after this event id. `evt_0` means all stored events."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "Only with `Accept: application/json`."),
        ("cursor" = Option<String>, Query, description = "Only with `Accept: application/json`."),
        ("Last-Event-ID" = Option<String>, Header, description = "Has the same meaning as the parameter `after`, and takes precedence over it.")),
    responses((status = 200, body = Page<EventItem>, content_type = "application/json"),
        (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn stream_events(
    State(state): State<ApiState>,
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
    if accepts_json(&headers) {
        let limit = query.page::<EventId>();
        query.finish()?;
        let cursor = limit.after.and_then(|cursor| cursor.parse().ok());
        let after = cursor.or(after).unwrap_or(EventId(0));
        let listing =
            events::list(&state.app, &caller, path.deployment_id, filter, after, limit.limit as usize)
                .await?;
        return Ok(Json(page(listing)?).into_response());
    }
    query.finish()?;
    let after = last_event_id(&headers)?.or(after);
    let subscription = events::subscribe(&state.app, &caller, path.deployment_id, filter, after).await?;
    Ok(sse::response(subscription, state.app.draining().clone()))
}

pub(crate) fn accepts_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    accept.contains("application/json") && !accept.contains("text/event-stream")
}

fn types(query: &mut Query) -> Vec<String> {
    let Some(text) = query.take("types") else { return Vec::new() };
    let types: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    for unknown in types.iter().filter(|name| !EVENT_TYPES.contains(&name.as_str())) {
        query.error(
            "types",
            format!("{unknown:?} is not an event type; must be one of: `{}`", EVENT_TYPES.join("`, `")),
        );
    }
    types
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<EventId>, Error> {
    let Some(value) = headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty()) else { return Ok(None) };
    let parsed = value.to_str().ok().and_then(|text| text.parse().ok());
    let invalid = || {
        Error::new(ErrorCode::ValidationError, "Last-Event-ID: must be an event id, for example `evt_42`.")
    };
    parsed.map(Some).ok_or_else(invalid)
}

fn page(listing: events::Listing) -> Result<Page<EventItem>, Error> {
    let item = |event: StoredEvent| {
        let data = RawValue::from_string(event.data.to_string()).map_err(|error| {
            tracing::error!(%error, event_id = %event.event_id, "the data of a stored event is not valid JSON");
            Error::new(ErrorCode::ServerError, "Failed to read a stored event.")
        })?;
        let id = event.event_id.to_string();
        Ok(EventItem { id, event: event.event.to_string(), data, created_at: event.created_at })
    };
    let data = listing.events.into_iter().map(item).collect::<Result<_, Error>>()?;
    Ok(Page { data, next_cursor: listing.next_after.map(|id| id.to_string()) })
}
