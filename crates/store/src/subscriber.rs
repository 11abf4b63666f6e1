//! The live events of one deployment, and the subscribers that receive them.
//!
//! All subscribers of a deployment share one ring buffer of recent events. Publishing an event wakes only the
//! subscribers whose filter matches it. In a deployment with hundreds of conversations, nearly every event concerns
//! only one subscriber.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use herm_types::event::{EventFilter, StoredEvent};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{Notify, broadcast};

/// The capacity of the ring buffer, in events. A subscriber that falls behind by more events than this must read the
/// event log.
pub(crate) const BACKLOG: usize = 256;

/// A subscriber is woken after this many events even if none of them matches its filter, so that it reads them before
/// the ring buffer overwrites them.
const MAX_UNWANTED: usize = BACKLOG / 2;

/// Receives a deployment's live events.
pub struct Subscriber {
    events: broadcast::Receiver<Arc<StoredEvent>>,
    waker: Arc<FilteredWaker>,
}

struct FilteredWaker {
    filter: EventFilter,
    unwanted: AtomicUsize,
    notify: Notify,
}

impl Subscriber {
    /// Returns the next event without waiting. Fails with `Empty` if the subscriber has received all published events.
    pub fn try_recv(&mut self) -> Result<Arc<StoredEvent>, TryRecvError> {
        self.events.try_recv()
    }

    /// Waits for the next event and returns it, even if it does not match the filter.
    ///
    /// A waiting subscriber is woken only when an event matches its filter, or after `MAX_UNWANTED` events that do
    /// not match. Cancel safe.
    ///
    /// # Errors
    /// Returns `Lagged` if the ring buffer overwrote events before they were received, and `Closed` if the channel is
    /// closed.
    pub async fn recv(&mut self) -> Result<Arc<StoredEvent>, RecvError> {
        loop {
            match self.events.try_recv() {
                Ok(event) => return Ok(event),
                Err(TryRecvError::Lagged(missed)) => return Err(RecvError::Lagged(missed)),
                Err(TryRecvError::Closed) => return Err(RecvError::Closed),
                Err(TryRecvError::Empty) => self.waker.notify.notified().await,
            }
        }
    }
}

impl FilteredWaker {
    /// Wakes the subscriber if one of these events matches its filter, or if [`MAX_UNWANTED`] events that do not match
    /// have accumulated.
    fn publish<'e>(&self, mut events: impl ExactSizeIterator<Item = &'e Arc<StoredEvent>>) {
        let unwanted = self.unwanted.load(Ordering::Relaxed) + events.len();
        // An event without a thread concerns the whole deployment and wakes every subscriber. For example, the deletion
        // of the deployment ends every stream.
        let is_due = unwanted >= MAX_UNWANTED
            || events.any(|event| event.thread_id.is_none() || self.filter.matches(event));
        self.unwanted.store(if is_due { 0 } else { unwanted }, Ordering::Relaxed);
        if is_due {
            self.notify.notify_one();
        }
    }
}

/// Delivers a deployment's committed events to its subscribers.
pub(crate) struct Channel {
    events: broadcast::Sender<Arc<StoredEvent>>,
    wakers: Vec<Weak<FilteredWaker>>,
}

impl Default for Channel {
    fn default() -> Self {
        Self { events: broadcast::channel(BACKLOG).0, wakers: Vec::new() }
    }
}

impl Channel {
    pub(crate) fn has_subscribers(&self) -> bool {
        self.events.receiver_count() > 0
    }

    pub(crate) fn subscribe(&mut self, filter: EventFilter) -> Subscriber {
        if self.wakers.len().is_power_of_two() {
            // Removes the wakers of dropped subscribers. Doing this only when the number of wakers is a power of two
            // keeps the amortized cost of a subscription constant.
            self.wakers.retain(|waker| waker.strong_count() > 0);
        }
        let waker = Arc::new(FilteredWaker { filter, unwanted: AtomicUsize::new(0), notify: Notify::new() });
        self.wakers.push(Arc::downgrade(&waker));
        Subscriber { events: self.events.subscribe(), waker }
    }

    /// Publishes events to all subscribers. Returns false if there are no subscribers.
    pub(crate) fn publish<'e>(
        &mut self,
        events: &(impl ExactSizeIterator<Item = &'e Arc<StoredEvent>> + Clone),
    ) -> bool {
        for event in events.clone() {
            if self.events.send(Arc::clone(event)).is_err() {
                return false;
            }
        }
        // All events are already in the ring buffer, so it is enough to wake each subscriber once.
        self.wakers.iter().filter_map(Weak::upgrade).for_each(|waker| waker.publish(events.clone()));
        true
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // Replacing the sender closes the channel. This must happen before the wake-ups, so that a woken subscriber
        // finds the channel closed.
        self.events = broadcast::channel(1).0;
        self.wakers.iter().filter_map(Weak::upgrade).for_each(|waker| waker.notify.notify_one());
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Wake, Waker};

    use herm_types::id::{EventId, Id as _};
    use herm_types::{ThreadId, Timestamp};

    use super::*;

    #[derive(Default)]
    struct WakeCounter(AtomicUsize);

    impl Wake for WakeCounter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn thread(number: u128) -> ThreadId {
        ThreadId::from_bits(number)
    }

    fn event(number: usize, thread_id: Option<ThreadId>) -> Arc<StoredEvent> {
        Arc::new(StoredEvent {
            event_id: EventId(number as i64),
            event: Arc::from("token"),
            run_id: None,
            thread_id,
            data: Arc::from("{}"),
            created_at: Timestamp::from_micros(0),
        })
    }

    fn of_thread(number: u128) -> EventFilter {
        EventFilter { thread_id: Some(thread(number)), ..EventFilter::default() }
    }

    /// Publishes `events`, one after the other, to a subscriber that is waiting. Returns how often the subscriber was
    /// woken, and the numbers of the events that it received.
    fn publish_to_waiting(events: &[Arc<StoredEvent>]) -> (usize, Vec<usize>) {
        let mut channel = Channel::default();
        let mut subscriber = channel.subscribe(of_thread(1));
        let wake_ups = Arc::new(WakeCounter::default());
        let waker = Waker::from(Arc::clone(&wake_ups));
        {
            let mut waiting = pin!(subscriber.recv());
            assert!(matches!(waiting.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Pending));
            for event in events {
                assert!(channel.publish(&std::iter::once(event)));
            }
        }
        let received =
            std::iter::from_fn(|| subscriber.try_recv().ok()).map(|event| event.event_id.0 as usize);
        (wake_ups.0.load(Ordering::SeqCst), received.collect())
    }

    #[test]
    fn an_unwanted_event_wakes_no_subscriber_and_is_received_later() {
        let mut events: Vec<_> = (1..100).map(|number| event(number, Some(thread(2)))).collect();
        assert_eq!(publish_to_waiting(&events), (0, (1..100).collect()));
        events.push(event(100, Some(thread(1))));
        assert_eq!(publish_to_waiting(&events), (1, (1..=100).collect()));
    }

    #[test]
    fn a_subscriber_is_woken_before_the_ring_buffer_overwrites_unread_events() {
        let events: Vec<_> = (1..=BACKLOG).map(|number| event(number, Some(thread(2)))).collect();
        assert_eq!(publish_to_waiting(&events[..MAX_UNWANTED - 1]).0, 0);
        assert_eq!(publish_to_waiting(&events[..MAX_UNWANTED]).0, 1);
    }

    #[test]
    fn an_event_without_a_thread_wakes_every_subscriber() {
        assert_eq!(publish_to_waiting(&[event(1, Some(thread(2))), event(2, None)]), (1, vec![1, 2]));
    }

    #[tokio::test]
    async fn closing_a_channel_wakes_its_subscribers() {
        let mut channel = Channel::default();
        let mut subscriber = channel.subscribe(of_thread(1));
        channel.publish(&[event(1, Some(thread(2)))].iter());
        let wait_twice =
            async { (subscriber.recv().await.unwrap().event_id, subscriber.recv().await.unwrap_err()) };
        let (received, ()) = tokio::join!(wait_twice, async { drop(channel) });
        assert_eq!(received, (EventId(1), RecvError::Closed));
    }

    #[test]
    fn dropped_subscribers_are_removed() {
        let mut channel = Channel::default();
        let _stays = channel.subscribe(of_thread(1));
        for _ in 0..1000 {
            drop(channel.subscribe(of_thread(2)));
        }
        assert!(channel.wakers.len() < 10, "{}", channel.wakers.len());
        assert!(channel.has_subscribers());
    }
}
