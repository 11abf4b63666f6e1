//! What has been kept long enough is removed, whatever there is of it.

use std::sync::Arc;

use herm_store::idempotent_requests::{self as records, KEPT_MS, RequestKey};
use herm_store::{DatabaseClock, Error, Location, Options, Store};
use herm_types::time::{ManualClock, SystemRng};
use herm_types::{IdSource, KeyId, Timestamp};
use herm_worker::sweep;

/// More than one batch.
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

#[tokio::test]
async fn idempotency_records_of_yesterday_go_and_those_of_today_stay() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(Timestamp::from_micros(1_800_000_000_000_000)));
    let ids = IdSource::new(Arc::clone(&clock) as _, Arc::new(SystemRng));
    let store = Store::open(Options {
        location: Location::Sqlite(dir.path().to_owned()),
        clock: Arc::clone(&clock) as _,
        database_clock: DatabaseClock::Given,
        migrate: true,
        exclusive: true,
    })
    .await
    .unwrap();
    add(&store, ids.next(), RECORDS).await;
    clock.advance_ms(KEPT_MS);
    add(&store, ids.next(), 3).await;
    assert_eq!(sweep(&store).await.unwrap(), RECORDS as u64);
    assert_eq!(sweep(&store).await.unwrap(), 0);
    clock.advance_ms(KEPT_MS);
    assert_eq!(sweep(&store).await.unwrap(), 3);
}
