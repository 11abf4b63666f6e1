//! The event log: it has no gaps, is in commit order, and contains no events of failed transactions.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use herm_store::{Error, Location, events};
use herm_types::event::{Event, EventFilter};
use herm_types::{DeploymentId, EventId, Timestamp};
use secrecy::ExposeSecret as _;
use sqlx::{Connection as _, Executor as _};
use tokio::sync::broadcast::error::RecvError;

use crate::engine::{World, log, on_both_engines};

on_both_engines!(
    events_are_numbered_from_one_in_commit_order,
    a_failed_transaction_leaves_no_event_and_no_hole,
    a_subscriber_receives_every_event_of_the_log,
    the_text_of_a_run_is_found_in_the_log,
    nothing_is_appended_after_a_deletion,
    trimming_removes_old_events_of_one_deployment,
    numbering_continues_after_all_events_are_trimmed,
    events_of_an_active_run_are_never_trimmed,
    deployments_with_old_events_are_listed_in_pages,
);

async fn emit(world: &World, deployment_id: DeploymentId, count: usize) -> Result<(), Error> {
    world
        .store
        .transaction("emit", move |tx| {
            Box::pin(async move {
                for _ in 0..count {
                    tx.emit(deployment_id, Event::deployment_status("ready"));
                }
                Ok(())
            })
        })
        .await
}

async fn events_are_numbered_from_one_in_commit_order(world: World) {
    let (one, two) = (world.deployment().await.deployment_id, world.deployment().await.deployment_id);
    for count in [2, 1, 3] {
        emit(&world, one, count).await.unwrap();
    }
    emit(&world, two, 1).await.unwrap();
    let numbers: Vec<i64> = log(&world.store, one).await.iter().map(|(number, ..)| *number).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    assert_eq!(
        log(&world.store, two).await,
        [(1, "deployment_status".into(), r#"{"status":"ready"}"#.into())]
    );
}

async fn a_failed_transaction_leaves_no_event_and_no_hole(world: World) {
    let deployment_id = world.deployment().await.deployment_id;
    emit(&world, deployment_id, 1).await.unwrap();
    let failed: Result<(), Error> = world
        .store
        .transaction("fail", move |tx| {
            Box::pin(async move {
                tx.emit(deployment_id, Event::deployment_status("error"));
                Err(Error::Corrupt("on purpose".to_owned()))
            })
        })
        .await;
    assert!(failed.is_err());
    emit(&world, deployment_id, 1).await.unwrap();
    let log = log(&world.store, deployment_id).await;
    assert_eq!(log.iter().map(|(number, ..)| *number).collect::<Vec<_>>(), [1, 2]);
    assert!(log.iter().all(|(_, _, data)| data.contains("ready")));
}

async fn a_subscriber_receives_every_event_of_the_log(world: World) {
    let deployment_id = world.deployment().await.deployment_id;
    let mut heard = world.store.feed().subscribe(deployment_id, EventFilter::default());
    emit(&world, deployment_id, 3).await.unwrap();
    for (number, event, data) in log(&world.store, deployment_id).await {
        let live = heard.recv().await.unwrap();
        assert_eq!((live.event_id.0, &*live.event, &*live.data), (number, event.as_str(), data.as_str()));
    }
}

/// Cancels the caller of a transaction while it waits for the database: in round 1 during its first wait, in round 2
/// during its second, and so on until the commit. The runtime has a single thread, so every wait is a point at which
/// the test can cancel the caller.
#[tokio::test]
async fn a_subscriber_receives_events_whose_committer_was_cancelled() {
    let world = World::postgres().await;
    let deployment_id = world.deployment().await.deployment_id;
    let mut heard = world.store.feed().subscribe(deployment_id, EventFilter::default());
    let mut unheard: BTreeSet<i64> = BTreeSet::new();
    let mut last = 0;
    for polls in 1.. {
        let asked = polled(polls, pin!(emit(&world, deployment_id, 1))).await;
        // Emits a second event. A subscriber that has received the second event must also have received the event of
        // the cancelled caller, if that was committed.
        emit(&world, deployment_id, 1).await.unwrap();
        let head = log(&world.store, deployment_id).await.last().unwrap().0;
        unheard.extend(last + 1..=head);
        last = head;
        while !unheard.is_empty() {
            let event = heard.recv().await.unwrap();
            assert!(unheard.remove(&event.event_id.0));
        }
        if asked.is_some() {
            break;
        }
    }
}

/// Polls a future up to `times` times. Returns `None` if the future is not ready by then.
async fn polled<F: Future>(mut times: u32, mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(move |context| {
        times -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if times == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

#[tokio::test]
async fn an_unconfirmed_commit_sends_subscribers_to_the_log() {
    let world = World::postgres().await;
    let deployment_id = world.deployment().await.deployment_id;
    let mut heard = world.store.feed().subscribe(deployment_id, EventFilter::default());
    let Location::Postgres(url) = &world.location else { unreachable!() };
    let mut connection = sqlx::PgConnection::connect(url.expose_secret()).await.unwrap();
    connection.execute(CUT_OFF_AT_COMMIT).await.unwrap();
    assert!(matches!(emit(&world, deployment_id, 1).await, Err(Error::Commit(_))));
    assert_eq!(heard.recv().await.unwrap_err(), RecvError::Closed);
}

/// The SQL statements that install a trigger. During the commit of a transaction that inserted an event, the trigger
/// terminates the transaction's database connection. The server therefore never learns whether the commit succeeded.
const CUT_OFF_AT_COMMIT: &str = "CREATE FUNCTION cut_off() RETURNS trigger LANGUAGE plpgsql AS \
    $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$; \
    CREATE CONSTRAINT TRIGGER cut_off AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED \
    FOR EACH ROW EXECUTE FUNCTION cut_off()";

async fn the_text_of_a_run_is_found_in_the_log(world: World) {
    let deployment = world.deployment().await;
    let (run_id, message_id) = world.run(&deployment).await;
    let other = world.run(&deployment).await.0;
    let (deployment_id, thread_id) = (deployment.deployment_id, deployment.default_thread_id);
    world
        .store
        .transaction("say", move |tx| {
            Box::pin(async move {
                for (run_id, delta) in [(run_id, "before"), (run_id, "a"), (other, "b"), (run_id, "c")] {
                    let delta = delta.to_owned();
                    tx.emit(deployment_id, Event::Token { run_id, thread_id, message_id, delta });
                }
                Ok::<_, Error>(())
            })
        })
        .await
        .unwrap();
    let spoken = world
        .store
        .read("spoken", move |tx| Box::pin(events::text_after(tx, deployment_id, run_id, EventId(1))))
        .await
        .unwrap();
    assert_eq!(spoken.iter().map(|event| event.event_id.0).collect::<Vec<_>>(), [2, 4]);
}

async fn nothing_is_appended_after_a_deletion(world: World) {
    let deployment = world.deployment().await;
    let deployment_id = deployment.deployment_id;
    let deleted = world
        .store
        .transaction("delete", move |tx| {
            Box::pin(async move { herm_store::deployments::delete(tx, &deployment).await })
        })
        .await;
    assert!(deleted.unwrap());
    assert!(matches!(emit(&world, deployment_id, 1).await, Err(Error::DeploymentDeleted)));
    let log = log(&world.store, deployment_id).await;
    assert_eq!(log.len(), 1, "the deletion is the last event: {log:?}");
}

async fn trim(world: &World, deployment_id: DeploymentId, before: Timestamp, limit: i64) -> u64 {
    let trimmed =
        world.store.transaction("trim", move |tx| Box::pin(events::trim(tx, deployment_id, before, limit)));
    trimmed.await.unwrap()
}

async fn retained_range(world: &World, deployment_id: DeploymentId) -> (i64, i64) {
    let range = world
        .store
        .read("retained_range", move |tx| Box::pin(events::retained_range(tx, deployment_id)))
        .await
        .unwrap();
    (range.trimmed.0, range.head.0)
}

fn now(world: &World) -> Timestamp {
    herm_types::Clock::now(&*world.clock)
}

async fn numbers(world: &World, deployment_id: DeploymentId) -> Vec<i64> {
    log(&world.store, deployment_id).await.iter().map(|(number, ..)| *number).collect()
}

async fn trimming_removes_old_events_of_one_deployment(world: World) {
    let deployment_id = world.deployment().await.deployment_id;
    emit(&world, deployment_id, 5).await.unwrap();
    let other = world.deployment().await.deployment_id;
    emit(&world, other, 2).await.unwrap();
    world.clock.advance_ms(1000);
    emit(&world, deployment_id, 2).await.unwrap();
    let before = now(&world);
    assert_eq!(retained_range(&world, deployment_id).await, (0, 7));
    // Each call removes up to 3 events, and only events written before `before`.
    assert_eq!(trim(&world, deployment_id, before, 3).await, 3);
    assert_eq!(retained_range(&world, deployment_id).await, (3, 7));
    assert_eq!(trim(&world, deployment_id, before, 100).await, 2);
    assert_eq!(trim(&world, deployment_id, before, 100).await, 0);
    assert_eq!(numbers(&world, deployment_id).await, [6, 7]);
    assert_eq!(numbers(&world, other).await, [1, 2]);
}

async fn numbering_continues_after_all_events_are_trimmed(world: World) {
    let deployment_id = world.deployment().await.deployment_id;
    emit(&world, deployment_id, 2).await.unwrap();
    let before = now(&world).plus_ms(1);
    assert_eq!(trim(&world, deployment_id, before, 100).await, 2);
    emit(&world, deployment_id, 1).await.unwrap();
    assert_eq!(
        (retained_range(&world, deployment_id).await, numbers(&world, deployment_id).await),
        ((2, 3), vec![3])
    );
}

async fn events_of_an_active_run_are_never_trimmed(world: World) {
    let deployment = world.deployment().await;
    let (deployment_id, thread_id) = (deployment.deployment_id, deployment.default_thread_id);
    let (run_id, message_id) = world.run(&deployment).await;
    emit(&world, deployment_id, 2).await.unwrap();
    let say = world.store.transaction("say", move |tx| {
        Box::pin(async move {
            tx.emit(deployment_id, Event::Token { run_id, thread_id, message_id, delta: "One".to_owned() });
            Ok::<_, Error>(())
        })
    });
    say.await.unwrap();
    emit(&world, deployment_id, 1).await.unwrap();
    let before = now(&world).plus_ms(1);
    assert_eq!(trim(&world, deployment_id, before, 100).await, 2);
    assert_eq!(numbers(&world, deployment_id).await, [3, 4]);
    let end = world.store.transaction("end", move |tx| {
        Box::pin(async move {
            herm_store::runs::transition(tx, run_id, herm_store::runs::Transition::Cancel(None)).await
        })
    });
    end.await.unwrap();
    assert_eq!(trim(&world, deployment_id, before, 100).await, 3, "the end of the run is an event too");
}

async fn deployments_with_old_events_are_listed_in_pages(world: World) {
    let mut old = Vec::new();
    for _ in 0..3 {
        let deployment_id = world.deployment().await.deployment_id;
        emit(&world, deployment_id, 1).await.unwrap();
        old.push(deployment_id);
    }
    old.sort();
    // A deployment without events must not be listed.
    world.deployment().await;
    world.clock.advance_ms(1000);
    emit(&world, world.deployment().await.deployment_id, 1).await.unwrap();
    let before = now(&world);
    let find = async |after| {
        let found = world
            .store
            .read("find", move |tx| Box::pin(events::deployments_with_older(tx, after, before, 2)));
        found.await.unwrap()
    };
    assert_eq!(find(None).await, old[..2]);
    assert_eq!(find(Some(old[1])).await, old[2..]);
    assert_eq!(find(Some(old[2])).await, []);
}
