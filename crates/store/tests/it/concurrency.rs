//! Concurrent transactions: event logs have no gaps, each work item is claimed only once, and a panic affects only its
//! own transaction.

use std::collections::BTreeSet;
use std::sync::Arc;

use herm_store::{Error, queue};
use herm_types::event::Event;

use crate::engine::{World, log, on_both_engines};

on_both_engines!(
    concurrent_writers_leave_a_gapless_log,
    concurrent_claims_never_share_an_item,
    a_panicking_transaction_affects_no_other,
);

async fn concurrent_writers_leave_a_gapless_log(world: World) {
    let world = Arc::new(world);
    let deployment_id = world.deployment().await.deployment_id;
    let writers = (0..8).map(|writer| {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            for number in 0..20 {
                let fails = (writer + number) % 5 == 0;
                let written: Result<(), Error> = world
                    .store
                    .transaction("write", move |tx| {
                        Box::pin(async move {
                            tx.emit(deployment_id, Event::deployment_status("ready"));
                            if fails { Err(Error::Corrupt("on purpose".to_owned())) } else { Ok(()) }
                        })
                    })
                    .await;
                assert_eq!(written.is_err(), fails);
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let numbers: Vec<i64> =
        log(&world.store, deployment_id).await.iter().map(|(number, ..)| *number).collect();
    assert_eq!(numbers, (1..=128).collect::<Vec<_>>());
}

async fn concurrent_claims_never_share_an_item(world: World) {
    let world = Arc::new(world);
    let deployment = world.deployment().await;
    for _ in 0..12 {
        world.run(&deployment).await;
    }
    let claims = (0..4).map(|_| {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            world
                .store
                .transaction("claim", |tx| Box::pin(async move { queue::claim(tx, "w", 4, 30_000).await }))
                .await
                .unwrap()
        })
    });
    let mut claimed = Vec::new();
    for claim in claims.collect::<Vec<_>>() {
        claimed.extend(claim.await.unwrap().into_iter().map(|lease| lease.subject_id));
    }
    let distinct: BTreeSet<&String> = claimed.iter().collect();
    assert_eq!(distinct.len(), claimed.len(), "an item has two owners");
}

async fn a_panicking_transaction_affects_no_other(world: World) {
    let world = Arc::new(world);
    let deployment_id = world.deployment().await.deployment_id;
    let panicking = Arc::clone(&world);
    let panicked = tokio::spawn(async move {
        panicking
            .store
            .transaction("panic", move |tx| {
                Box::pin(async move {
                    tx.emit(deployment_id, Event::deployment_status("error"));
                    if deployment_id.to_string().starts_with("dep_") {
                        panic!("on purpose");
                    }
                    Ok::<_, Error>(())
                })
            })
            .await
    })
    .await;
    // On SQLite, the transaction panics on the writer thread and the caller receives an error. On PostgreSQL, the
    // calling task itself panics.
    assert!(!matches!(panicked, Ok(Ok(()))));
    world
        .store
        .transaction("after", move |tx| {
            Box::pin(async move {
                tx.emit(deployment_id, Event::deployment_status("ready"));
                Ok::<_, Error>(())
            })
        })
        .await
        .unwrap();
    assert_eq!(
        log(&world.store, deployment_id).await,
        [(1, "deployment_status".into(), r#"{"status":"ready"}"#.into())]
    );
}
