//! The event log is gapless, in commit order, and what a failed transaction emitted is not in it.

use herm_store::{Error, events};
use herm_types::event::Event;
use herm_types::{DeploymentId, EventId};

use crate::engine::{World, log, on_both_engines};

on_both_engines!(
    events_are_numbered_from_one_in_commit_order,
    a_failed_transaction_leaves_no_event_and_no_hole,
    a_subscriber_hears_what_the_log_holds,
    what_a_run_said_is_found_again,
    nothing_is_appended_after_a_deletion,
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

async fn a_subscriber_hears_what_the_log_holds(world: World) {
    let deployment_id = world.deployment().await.deployment_id;
    let mut heard = world.store.feed().subscribe(deployment_id);
    emit(&world, deployment_id, 3).await.unwrap();
    for (number, event, data) in log(&world.store, deployment_id).await {
        let live = heard.recv().await.unwrap();
        assert_eq!((live.event_id.0, &*live.event, &*live.data), (number, event.as_str(), data.as_str()));
    }
}

async fn what_a_run_said_is_found_again(world: World) {
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
        .read("spoken", move |tx| Box::pin(events::spoken_after(tx, deployment_id, run_id, EventId(1))))
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
            Box::pin(async move {
                tx.emit(deployment_id, Event::deployment_status("deleted"));
                herm_store::deployments::delete(tx, &deployment).await
            })
        })
        .await;
    assert!(deleted.unwrap());
    assert!(matches!(emit(&world, deployment_id, 1).await, Err(Error::DeploymentDeleted)));
    let log = log(&world.store, deployment_id).await;
    assert_eq!(log.len(), 1, "the deletion is the last event: {log:?}");
}
