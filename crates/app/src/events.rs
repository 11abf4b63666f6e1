//! The events of a deployment, followed live or read from the log.

use std::collections::VecDeque;
use std::sync::Arc;

use herm_store::events::Kept;
use herm_store::{Listener, Store, events};
use herm_types::event::{EventFilter, StoredEvent};
use herm_types::id::EventId;
use herm_types::key::Scope;
use herm_types::{DeploymentId, Error as Refusal, ErrorCode};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use crate::key_watch::KeyHold;
use crate::{App, Caller, Error};

/// Events that one listing looks at, at most, to fill a page under a filter.
const MAX_CONSIDERED: usize = 5000;

/// Events that may go by, beyond those kept in memory for a subscriber, before it is taken for slow: a server at its
/// limit is late with its readers too.
const MAX_MISSED: u64 = 1024;

/// What a subscriber gets next.
#[derive(Clone, Debug)]
pub enum Next {
    Event(Arc<StoredEvent>),
    /// What was asked for lies beyond the head, where the stream then goes on; or is no longer kept, and it goes on with
    /// the earliest event that is.
    Gap {
        requested: EventId,
        earliest: EventId,
        latest: EventId,
    },
    /// Nothing follows: the deployment is deleted, the subscriber's key has ended, or the subscriber fell too far
    /// behind and resumes by id.
    End,
}

/// A place in a deployment's log that moves forward. Every event that passes the filter is given once, in
/// order, first from the log and then live.
pub struct Subscription {
    store: Store,
    deployment_id: DeploymentId,
    filter: EventFilter,
    live: Listener,
    backlog: VecDeque<Arc<StoredEvent>>,
    /// The last event that was considered.
    position: EventId,
    /// Whether the log may hold events after the backlog.
    behind: bool,
    /// Whether it keeps up: it has heard an event live since it last read the log.
    keeps_up: bool,
    gap: Option<Next>,
    ended: bool,
    key: Arc<KeyHold>,
}

/// Follows a deployment's events after `after`; without it, from the head on.
pub async fn subscribe(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    filter: EventFilter,
    after: Option<EventId>,
) -> Result<Subscription, Error> {
    caller.require(Scope::DeploymentsRead)?;
    app.refuse_while_draining()?;
    // Heard from before the head is read: what is committed in between arrives both ways, and counts once.
    let live = app.store.feed().subscribe(deployment_id, filter.clone());
    let key = Arc::new(app.key_watch.hold(caller.key()));
    let kept = kept(app, caller, deployment_id).await?;
    let head = kept.head;
    let (position, gap) = match after {
        None => (head, None),
        Some(after) if after > head => (head, Some(gap(after, kept))),
        Some(after) if after < kept.trimmed => (kept.trimmed, Some(gap(after, kept))),
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

fn gap(requested: EventId, kept: Kept) -> Next {
    Next::Gap { requested, earliest: EventId(kept.trimmed.0 + 1), latest: kept.head }
}

async fn kept(app: &App, caller: &Caller, deployment_id: DeploymentId) -> Result<Kept, Error> {
    let (caller, now) = (caller.clone(), app.now());
    app.store
        .read("events_kept", move |tx| {
            Box::pin(async move {
                // Looked at again under the key's hold: a revocation from here on ends the stream.
                caller.check_live(tx, now).await?;
                caller.deployment(tx, deployment_id).await?;
                Ok(events::kept(tx, deployment_id).await?)
            })
        })
        .await
}

impl Subscription {
    /// The last event that was considered, be it given or filtered out: a resume after it misses nothing.
    pub fn position(&self) -> EventId {
        self.position
    }

    /// Where a subscription that has given nothing yet begins: a resume after it misses nothing. `None` where a gap
    /// is to be told first.
    pub fn beginning(&self) -> Option<EventId> {
        self.gap.is_none().then_some(self.position)
    }

    /// The next event, as soon as there is one. Safe to drop at any await: nothing is lost.
    pub async fn next(&mut self) -> Result<Next, Error> {
        let key = Arc::clone(&self.key);
        if key.has_ended() {
            return Ok(Next::End);
        }
        tokio::select! {
            biased;
            next = self.advance() => next,
            () = key.ended() => Ok(Next::End),
        }
    }

    async fn advance(&mut self) -> Result<Next, Error> {
        // Only what piled up before it was asked again can be the reader's doing.
        let mut has_waited = false;
        loop {
            if let Some(gap) = self.gap.take() {
                return Ok(gap);
            }
            if self.ended {
                return Ok(Next::End);
            }
            if let Some(event) = self.backlog.pop_front() {
                if self.consider(&event) {
                    return Ok(Next::Event(event));
                }
            } else if self.behind {
                self.read_log().await?;
            } else if let Some(event) = self.hear(&mut has_waited).await
                && self.consider(&event)
            {
                return Ok(Next::Event(event));
            }
        }
    }

    /// Moves on to the event; says whether the subscriber wants it.
    fn consider(&mut self, event: &StoredEvent) -> bool {
        self.position = event.event_id;
        self.ended = is_deletion(event);
        self.filter.wants(event)
    }

    async fn read_log(&mut self) -> Result<(), Error> {
        let (deployment_id, position) = (self.deployment_id, self.position);
        let (read, kept) = self
            .store
            .read("read_events", move |tx| {
                Box::pin(async move {
                    let read = events::read_after(tx, deployment_id, position, events::MAX_READ).await?;
                    let goes_on = read.first().is_some_and(|first| first.event_id.0 == position.0 + 1);
                    // Asked afterwards: what is removed in between shows.
                    let kept = if goes_on { None } else { Some(events::kept(tx, deployment_id).await?) };
                    Ok::<_, herm_store::Error>((read, kept))
                })
            })
            .await?;
        if let Some(kept) = kept.filter(|kept| kept.trimmed > position) {
            // Removed because of its age before this subscriber came to it.
            self.gap = Some(gap(position, kept));
            self.position = kept.trimmed;
            return Ok(());
        }
        self.behind = !read.is_empty();
        self.keeps_up = false;
        self.backlog.extend(read.into_iter().map(Arc::new));
        Ok(())
    }

    /// Waits for a live event; `None` where the log has to be read first, or nothing follows.
    ///
    /// A subscriber that takes too long to come back for more ends. One that was waiting is not slow, however much
    /// went by before it had its turn: a burst, or a server at its limit, sends it to the log.
    async fn hear(&mut self, has_waited: &mut bool) -> Option<Arc<StoredEvent>> {
        let at_hand = if *has_waited { Err(TryRecvError::Empty) } else { self.live.try_recv() };
        let is_slow =
            self.keeps_up && matches!(at_hand, Err(TryRecvError::Lagged(missed)) if missed > MAX_MISSED);
        *has_waited = true;
        let heard = match at_hand {
            Ok(event) => Ok(event),
            Err(TryRecvError::Empty) => self.live.recv().await,
            Err(TryRecvError::Lagged(missed)) => Err(RecvError::Lagged(missed)),
            Err(TryRecvError::Closed) => Err(RecvError::Closed),
        };
        match heard {
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
                // While it read the log the subscriber could not listen; that is not being slow.
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

/// The last event of a deployment: its log is erased after it.
fn is_deletion(event: &StoredEvent) -> bool {
    &*event.event == "deployment_status" && event.data.contains("\"deleted\"")
}

/// A part of a deployment's log, oldest first, and where the next part begins.
pub struct Listing {
    pub events: Vec<StoredEvent>,
    pub next_after: Option<EventId>,
}

/// Up to `limit` events after `after` that pass the filter. A page may be short, or empty, and have a next one:
/// a filter that little passes is followed page by page.
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
                    let message = format!("after: {after} lies beyond the latest event, {head}.");
                    return Err(Refusal::new(ErrorCode::ValidationError, message).into());
                }
                let (mut found, mut position, mut considered) = (Vec::new(), after, 0);
                while position < head && found.len() < limit && considered < MAX_CONSIDERED {
                    let read = events::read_after(tx, deployment_id, position, events::MAX_READ).await?;
                    if read.is_empty() {
                        position = head;
                    }
                    for event in read {
                        considered += 1;
                        position = event.event_id;
                        if filter.wants(&event) {
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
