//! Tests of the removal of expired data, including removals that take more than one batch.

use std::sync::Arc;

use herm_store::idempotent_requests::{self as records, RECORD_LIFETIME_MS, RequestKey};
use herm_store::{DatabaseClock, Error, Location, Options, Store, deployments};
use herm_types::deployment::{Deployment, DeploymentSettings, DeploymentStatus};
use herm_types::event::Event;
use herm_types::sandbox::{SandboxSettings, SandboxType};
use herm_types::time::{ManualClock, SystemRng};
use herm_types::{DeploymentId, IdSource, KeyId, Timestamp};
use herm_worker::{sweep_events, sweep_idempotency_records};

/// The number of idempotency records that the test inserts: more than are removed in one batch.
const RECORDS: usize = 1201;

async fn add(store: &Store, key_id: KeyId, records: usize) {
    store
        .transaction("add", move |tx| {
            Box::pin(async move {
                for number in 0..records {
                    let key = RequestKey {
                        key_id,
                        method: "POST".to_owned(),
                        path: "/v1/deployments".to_owned(),
                        idempotency_key: number.to_string(),
                    };
                    records::insert(tx, &key, "hash", "claim", 60_000).await?;
                }
                Ok::<_, Error>(())
            })
        })
        .await
        .unwrap();
}

async fn open() -> (tempfile::TempDir, Arc<ManualClock>, IdSource, Store) {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(Timestamp::from_micros(1_800_000_000_000_000)));
    let ids = IdSource::new(Arc::clone(&clock) as _, Arc::new(SystemRng));
    let store = Store::open(Options {
        location: Location::Sqlite(dir.path().to_owned()),
        clock: Arc::clone(&clock) as _,
        database_clock: DatabaseClock::FromOptions,
        migrate: true,
        exclusive: true,
    })
    .await
    .unwrap();
    (dir, clock, ids, store)
}

#[tokio::test]
async fn idempotency_records_are_removed_after_their_retention_period() {
    let (_dir, clock, ids, store) = open().await;
    add(&store, ids.next(), RECORDS).await;
    clock.advance_ms(RECORD_LIFETIME_MS);
    add(&store, ids.next(), 3).await;
    assert_eq!(sweep_idempotency_records(&store).await.unwrap(), RECORDS as u64);
    assert_eq!(sweep_idempotency_records(&store).await.unwrap(), 0);
    clock.advance_ms(RECORD_LIFETIME_MS);
    assert_eq!(sweep_idempotency_records(&store).await.unwrap(), 3);
}

async fn emit(store: &Store, deployment_id: DeploymentId, events: usize) {
    let emitted = store.transaction("emit", move |tx| {
        Box::pin(async move {
            (0..events).for_each(|_| tx.emit(deployment_id, Event::deployment_status("ready")));
            Ok::<_, Error>(())
        })
    });
    emitted.await.unwrap();
}

#[tokio::test]
async fn events_older_than_the_retention_period_are_removed() {
    const DAY_MS: i64 = 24 * 60 * 60 * 1000;
    let (_dir, clock, ids, store) = open().await;
    let agents = [deployment(&ids), deployment(&ids), deployment(&ids)];
    let made = agents.clone();
    let insert = store.transaction("create", move |tx| {
        Box::pin(async move {
            for deployment in &made {
                deployments::insert(tx, deployment).await?;
            }
            Ok::<_, Error>(())
        })
    });
    insert.await.unwrap();
    // The events of the first deployment are removed in more than one batch. The second deployment has only a few
    // events.
    emit(&store, agents[0].deployment_id, 1201).await;
    emit(&store, agents[1].deployment_id, 2).await;
    clock.advance_ms(7 * DAY_MS);
    assert_eq!(sweep_events(&store, 7).await.unwrap(), 0);
    for agent in &agents {
        emit(&store, agent.deployment_id, 1).await;
    }
    clock.advance_ms(1);
    assert_eq!(sweep_events(&store, 7).await.unwrap(), 1203);
    assert_eq!(sweep_events(&store, 7).await.unwrap(), 0);
    clock.advance_ms(7 * DAY_MS);
    assert_eq!(sweep_events(&store, 7).await.unwrap(), 3);
}

fn deployment(ids: &IdSource) -> Deployment {
    let sandbox = SandboxSettings::new(SandboxType::Docker, Some(SandboxType::Local));
    let now = Timestamp::from_micros(1_800_000_000_000_000);
    Deployment {
        deployment_id: ids.next(),
        account_id: ids.next(),
        customer_id: "acme".to_owned(),
        name: "Ada".to_owned(),
        model: "demo/tour".to_owned(),
        system_prompt: "Be brief.".to_owned(),
        status: DeploymentStatus::Ready,
        error: None,
        restore_snapshot: None,
        default_thread_id: ids.next(),
        version: 1,
        settings: DeploymentSettings::new(sandbox),
        created_at: now,
        updated_at: now,
    }
}
