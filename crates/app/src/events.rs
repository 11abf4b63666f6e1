//! The events of a deployment: live streams and listings of the event log.

use std::collections::VecDeque;
use std::sync::Arc;

use herm_store::events::RetainedRange;
use herm_store::{Store, Subscriber, events};
use herm_types::event::{DELETED, EventFilter, StoredEvent};
use herm_types::id::EventId;
use herm_types::key::Scope;
use herm_types::{DeploymentId, Error as ApiError, ErrorCode};
use serde::Deserialize;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use crate::key_watch::KeyHandle;
use crate::{App, Caller, Error};

/// The maximum number of events that one filtered listing reads from the event log. When it is reached, the
/// listing returns the matching events that it has found so far.
const MAX_SCANNED: usize = 5000;

/// The maximum number of events that a slow subscriber may miss, not counting events that are still buffered
/// in memory. If it misses more, its stream ends. The limit is large because an overloaded server also delays
/// subscribers that are fast enough.
const MAX_MISSED: u64 = 1024;

/// An item of a subscription.
#[derive(Clone, Debug)]
pub enum StreamItem {
    Event(Arc<StoredEvent>),
    /// Some of the requested events do not exist. If `requested` is later than the latest event, the stream
    /// continues after the latest event. If retention has deleted the requested events, the stream continues
    /// with the earliest event that still exists.
    Gap {
        requested: EventId,
        earliest: EventId,
        latest: EventId,
    },
    /// The stream ends: the deployment was deleted, the key expired or was revoked, or the subscriber was too
    /// slow. In the last case the client must reconnect and resume after the last event that it received.
    End,
}

/// The source of one event stream. Returns every event that passes the filter exactly once and in order:
/// first the events of the event log, then live events.
pub struct Subscription {
    store: Store,
    deployment_id: DeploymentId,
    filter: EventFilter,
    live: Subscriber,
    backlog: VecDeque<Arc<StoredEvent>>,
    /// The id of the latest event that was read from the event log or received live, even if the filter
    /// excluded it.
    position: EventId,
    /// True if the event log may contain events that are later than those in `backlog`, so that it must be
    /// read again.
    behind: bool,
    /// True if a live event has been received since the event log was last read.
    keeps_up: bool,
    gap: Option<StreamItem>,
    ended: bool,
    key: Arc<KeyHandle>,
}

/// Subscribes to the events of a deployment that are later than `after`. With `None`, subscribes to the
/// events that are committed from now on.
pub async fn subscribe(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    filter: EventFilter,
    after: Option<EventId>,
) -> Result<Subscription, Error> {
    caller.require(Scope::DeploymentsRead)?;
    app.refuse_while_draining()?;
    // Subscribe to live events before reading the id of the latest event, so that no event is missed. An
    // event that is committed in between is found both live and in the event log, but is returned only once.
    let live = app.store.feed().subscribe(deployment_id, filter.clone());
    let key = Arc::new(app.key_watch.watch(caller.key()));
    let retained = log_range(app, caller, deployment_id).await?;
    let head = retained.head;
    let (position, gap) = match after {
        None => (head, None),
        Some(after) if after > head => (head, Some(gap(after, retained))),
        Some(after) if after < retained.trimmed => (retained.trimmed, Some(gap(after, retained))),
        Some(after) => (after, None),
    };
    let store = app.store.clone();
    let behind = position < head;
    Ok(Subscription {
        store,
        deployment_id,
        filter,
        live,
        backlog: VecDeque::new(),
        position,
        behind,
        keeps_up: false,
        gap,
        ended: false,
        key,
    })
}

fn gap(requested: EventId, retained: RetainedRange) -> StreamItem {
    StreamItem::Gap { requested, earliest: EventId(retained.trimmed.0 + 1), latest: retained.head }
}

async fn log_range(app: &App, caller: &Caller, deployment_id: DeploymentId) -> Result<RetainedRange, Error> {
    let (caller, now) = (caller.clone(), app.now());
    app.store
        .read("events_kept", move |tx| {
            Box::pin(async move {
                // Check the key again: it may have been revoked before `key_watch` began to watch it, and
                // `key_watch` reports only later revocations.
                caller.check_live(tx, now).await?;
                caller.deployment(tx, deployment_id).await?;
                Ok(events::retained_range(tx, deployment_id).await?)
            })
        })
        .await
}

impl Subscription {
    /// Returns the id of the latest event that was read, even if the filter excluded it. A client that
    /// resumes after this event misses no event.
    pub fn position(&self) -> EventId {
        self.position
    }

    /// Returns the event id after which a client can resume if the connection breaks before the first item.
    /// Returns `None` if the first item is a gap.
    pub fn beginning(&self) -> Option<EventId> {
        self.gap.is_none().then_some(self.position)
    }

    /// Waits for the next item. Cancel-safe: dropping the future loses no item.
    pub async fn next(&mut self) -> Result<StreamItem, Error> {
        let key = Arc::clone(&self.key);
        if key.has_ended() {
            return Ok(StreamItem::End);
        }
        tokio::select! {
            biased;
            next = self.advance() => next,
            () = key.ended() => Ok(StreamItem::End),
        }
    }

    async fn advance(&mut self) -> Result<StreamItem, Error> {
        // A subscriber is too slow only if it missed events before this call. Events that it misses while
        // this call waits do not count.
        let mut has_waited = false;
        loop {
            if let Some(gap) = self.gap.take() {
                return Ok(gap);
            }
            if self.ended {
                return Ok(StreamItem::End);
            }
            if let Some(event) = self.backlog.pop_front() {
                if self.advance_to(&event) {
                    return Ok(StreamItem::Event(event));
                }
            } else if self.behind {
                self.read_log().await?;
            } else if let Some(event) = self.next_live(&mut has_waited).await
                && self.advance_to(&event)
            {
                return Ok(StreamItem::Event(event));
            }
        }
    }

    /// Advances the position to the event. Returns true if the event passes the filter.
    fn advance_to(&mut self, event: &StoredEvent) -> bool {
        self.position = event.event_id;
        self.ended = is_deletion(event);
        self.filter.matches(event)
    }

    async fn read_log(&mut self) -> Result<(), Error> {
        let (deployment_id, position) = (self.deployment_id, self.position);
        let (read, retained) = self
            .store
            .read("read_events", move |tx| {
                Box::pin(async move {
                    let read = events::read_after(tx, deployment_id, position, events::MAX_READ).await?;
                    let is_contiguous = read.first().is_some_and(|first| first.event_id.0 == position.0 + 1);
                    // First read the events, then the range of events that still exist. In the opposite
                    // order, events that retention deletes between the two reads would be skipped without
                    // a gap being reported.
                    let retained = if is_contiguous {
                        None
                    } else {
                        Some(events::retained_range(tx, deployment_id).await?)
                    };
                    Ok::<_, herm_store::Error>((read, retained))
                })
            })
            .await?;
        if let Some(retained) = retained.filter(|retained| retained.trimmed > position) {
            // Retention trimmed the next events before this subscription read them.
            self.gap = Some(gap(position, retained));
            self.position = retained.trimmed;
            return Ok(());
        }
        self.behind = !read.is_empty();
        self.keeps_up = false;
        self.backlog.extend(read.into_iter().map(Arc::new));
        Ok(())
    }

    /// Waits for a live event. Returns `None` if the event log must be read first, if the received event was
    /// already read, or if the stream ends.
    ///
    /// The stream of a slow subscriber ends: a subscriber is slow if it misses too many events between two
    /// calls. A subscriber that was already waiting is never slow. If it misses events, because of a burst or
    /// an overloaded server, it reads them from the event log.
    async fn next_live(&mut self, has_waited: &mut bool) -> Option<Arc<StoredEvent>> {
        let buffered = if *has_waited { Err(TryRecvError::Empty) } else { self.live.try_recv() };
        let is_slow =
            self.keeps_up && matches!(buffered, Err(TryRecvError::Lagged(missed)) if missed > MAX_MISSED);
        *has_waited = true;
        let received = match buffered {
            Ok(event) => Ok(event),
            Err(TryRecvError::Empty) => self.live.recv().await,
            Err(TryRecvError::Lagged(missed)) => Err(RecvError::Lagged(missed)),
            Err(TryRecvError::Closed) => Err(RecvError::Closed),
        };
        match received {
            Ok(event) if event.event_id <= self.position => None,
            Ok(event) if event.event_id.0 == self.position.0 + 1 => {
                self.keeps_up = true;
                Some(event)
            }
            Ok(event) if is_deletion(&event) => Some(event),
            Ok(_) => {
                self.behind = true;
                None
            }
            Err(RecvError::Lagged(_)) => {
                // A subscriber that missed events while it was reading the event log is not slow: it could
                // not receive live events during that time.
                self.behind = !is_slow;
                self.ended = is_slow;
                None
            }
            Err(RecvError::Closed) => {
                self.live = self.store.feed().subscribe(self.deployment_id, self.filter.clone());
                self.behind = true;
                None
            }
        }
    }
}

/// Returns true if the event reports that the deployment was deleted. It is the last event of the deployment:
/// the event log is erased afterwards.
fn is_deletion(event: &StoredEvent) -> bool {
    #[derive(Deserialize)]
    struct Data<'a> {
        status: &'a str,
    }
    let data = (&*event.event == "deployment_status").then(|| serde_json::from_str::<Data<'_>>(&event.data));
    matches!(data, Some(Ok(Data { status: DELETED })))
}

/// A page of a deployment's events, oldest first.
pub struct Listing {
    pub events: Vec<StoredEvent>,
    /// The event after which the next page begins. `None` if this page contains the latest event.
    pub next_after: Option<EventId>,
}

/// Returns up to `limit` events that are later than `after` and pass the filter. If few events pass the
/// filter, a page may be short or empty although another page follows.
pub async fn list(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    filter: EventFilter,
    after: EventId,
    limit: usize,
) -> Result<Listing, Error> {
    caller.require(Scope::DeploymentsRead)?;
    let caller = caller.clone();
    app.store
        .read("list_events", move |tx| {
            Box::pin(async move {
                caller.deployment(tx, deployment_id).await?;
                let head = events::head(tx, deployment_id).await?;
                if after > head {
                    let message =
                        format!("`after` must not be later than the latest event, {head}; it is {after}.");
                    return Err(ApiError::new(ErrorCode::ValidationError, message).into());
                }
                let (mut found, mut position, mut scanned) = (Vec::new(), after, 0);
                while position < head && found.len() < limit && scanned < MAX_SCANNED {
                    let read = events::read_after(tx, deployment_id, position, events::MAX_READ).await?;
                    if read.is_empty() {
                        position = head;
                    }
                    for event in read {
                        scanned += 1;
                        position = event.event_id;
                        if filter.matches(&event) {
                            found.push(event);
                        }
                        if found.len() == limit {
                            break;
                        }
                    }
                }
                Ok(Listing { events: found, next_after: (position < head).then_some(position) })
            })
        })
        .await
}
