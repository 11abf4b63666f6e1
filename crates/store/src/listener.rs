//! One deployment's live events, and who listens to them.
//!
//! All listeners hear the same events, from one ring. But a task is only woken for what it waits for: with hundreds of
//! conversations in one deployment nearly every event is nobody's but one's.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use herm_types::event::{EventFilter, StoredEvent};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{Notify, broadcast};

/// Events a listener may be behind before it has to read the log.
pub(crate) const BACKLOG: usize = 256;

/// Events that go by before a listener is woken that wanted none of them: with room left to get up before the ring has
/// gone round.
const MAX_SLEPT_THROUGH: usize = BACKLOG / 2;

/// Hears a deployment's events.
pub struct Listener {
    events: broadcast::Receiver<Arc<StoredEvent>>,
    ear: Arc<Ear>,
}

struct Ear {
    filter: EventFilter,
    slept_through: AtomicUsize,
    woken: Notify,
}

impl Listener {
    /// The next event, if there is one already.
    pub fn try_recv(&mut self) -> Result<Arc<StoredEvent>, TryRecvError> {
        self.events.try_recv()
    }

    /// The next event, wanted or not; it is waited for until one comes that is wanted, or many that are not. Safe to
    /// drop: nothing is lost.
    ///
    /// # Errors
    /// `Lagged` where events were overwritten before they were heard, `Closed` where the channel was closed.
    pub async fn recv(&mut self) -> Result<Arc<StoredEvent>, RecvError> {
        loop {
            match self.events.try_recv() {
                Ok(event) => return Ok(event),
                Err(TryRecvError::Lagged(missed)) => return Err(RecvError::Lagged(missed)),
                Err(TryRecvError::Closed) => return Err(RecvError::Closed),
                Err(TryRecvError::Empty) => self.ear.woken.notified().await,
            }
        }
    }
}

impl Ear {
    /// Wakes its listener for these events, if that is due.
    fn hear<'e>(&self, mut events: impl ExactSizeIterator<Item = &'e Arc<StoredEvent>>) {
        let slept_through = self.slept_through.load(Ordering::Relaxed) + events.len();
        // What is of no thread is of the deployment itself: its end, say, which ends every stream.
        let is_due = slept_through >= MAX_SLEPT_THROUGH
            || events.any(|event| event.thread_id.is_none() || self.filter.wants(event));
        self.slept_through.store(if is_due { 0 } else { slept_through }, Ordering::Relaxed);
        if is_due {
            self.woken.notify_one();
        }
    }
}

/// Where a deployment's events are told.
pub(crate) struct Channel {
    events: broadcast::Sender<Arc<StoredEvent>>,
    ears: Vec<Weak<Ear>>,
}

impl Default for Channel {
    fn default() -> Self {
        Self { events: broadcast::channel(BACKLOG).0, ears: Vec::new() }
    }
}

impl Channel {
    pub(crate) fn has_listeners(&self) -> bool {
        self.events.receiver_count() > 0
    }

    pub(crate) fn subscribe(&mut self, filter: EventFilter) -> Listener {
        if self.ears.len().is_power_of_two() {
            // Those who have gone make room; now and then is often enough.
            self.ears.retain(|ear| ear.strong_count() > 0);
        }
        let ear = Arc::new(Ear { filter, slept_through: AtomicUsize::new(0), woken: Notify::new() });
        self.ears.push(Arc::downgrade(&ear));
        Listener { events: self.events.subscribe(), ear }
    }

    /// Tells events; `false` if nobody listens any more.
    pub(crate) fn publish<'e>(
        &mut self,
        events: &(impl ExactSizeIterator<Item = &'e Arc<StoredEvent>> + Clone),
    ) -> bool {
        for event in events.clone() {
            if self.events.send(Arc::clone(event)).is_err() {
                return false;
            }
        }
        // Woken when everything is there, so that one waking is enough.
        self.ears.iter().filter_map(Weak::upgrade).for_each(|ear| ear.hear(events.clone()));
        true
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // Closed before anybody wakes up to look.
        self.events = broadcast::channel(1).0;
        self.ears.iter().filter_map(Weak::upgrade).for_each(|ear| ear.woken.notify_one());
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
    struct Wakings(AtomicUsize);

    impl Wake for Wakings {
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

    /// Tells events after the listener has begun to wait; how often that woke it, and what it then hears.
    fn told(events: &[Arc<StoredEvent>]) -> (usize, Vec<usize>) {
        let mut channel = Channel::default();
        let mut listener = channel.subscribe(of_thread(1));
        let wakings = Arc::new(Wakings::default());
        let waker = Waker::from(Arc::clone(&wakings));
        {
            let mut waiting = pin!(listener.recv());
            assert!(matches!(waiting.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Pending));
            for event in events {
                assert!(channel.publish(&std::iter::once(event)));
            }
        }
        let heard = std::iter::from_fn(|| listener.try_recv().ok()).map(|event| event.event_id.0 as usize);
        (wakings.0.load(Ordering::SeqCst), heard.collect())
    }

    #[test]
    fn who_waits_sleeps_through_what_others_wait_for_and_hears_it_afterwards() {
        let mut events: Vec<_> = (1..100).map(|number| event(number, Some(thread(2)))).collect();
        assert_eq!(told(&events), (0, (1..100).collect()));
        events.push(event(100, Some(thread(1))));
        assert_eq!(told(&events), (1, (1..=100).collect()));
    }

    #[test]
    fn who_waits_is_woken_before_the_ring_has_gone_round() {
        let events: Vec<_> = (1..=BACKLOG).map(|number| event(number, Some(thread(2)))).collect();
        assert_eq!(told(&events[..MAX_SLEPT_THROUGH - 1]).0, 0);
        assert_eq!(told(&events[..MAX_SLEPT_THROUGH]).0, 1);
    }

    #[test]
    fn what_is_of_the_deployment_itself_wakes_everybody() {
        assert_eq!(told(&[event(1, Some(thread(2))), event(2, None)]), (1, vec![1, 2]));
    }

    #[tokio::test]
    async fn who_waits_where_the_channel_closes_is_woken() {
        let mut channel = Channel::default();
        let mut listener = channel.subscribe(of_thread(1));
        channel.publish(&[event(1, Some(thread(2)))].iter());
        let wait_twice =
            async { (listener.recv().await.unwrap().event_id, listener.recv().await.unwrap_err()) };
        let (heard, ()) = tokio::join!(wait_twice, async { drop(channel) });
        assert_eq!(heard, (EventId(1), RecvError::Closed));
    }

    #[test]
    fn who_has_gone_takes_no_room() {
        let mut channel = Channel::default();
        let _stays = channel.subscribe(of_thread(1));
        for _ in 0..1000 {
            drop(channel.subscribe(of_thread(2)));
        }
        assert!(channel.ears.len() < 10, "{}", channel.ears.len());
        assert!(channel.has_listeners());
    }
}
