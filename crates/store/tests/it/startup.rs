//! Opening a database: only one server can lock it, `herm` commands can open it while a server runs, and a database
//! with the wrong schema version is rejected.

use herm_store::{Error, Location, Options, SCHEMA_VERSION, Store, queue, schema_version};
use secrecy::ExposeSecret as _;
use sqlx::Connection as _;

use crate::engine::{World, on_both_engines, options};

on_both_engines!(
    a_second_server_is_refused,
    opening_waits_for_a_server_that_is_stopping,
    a_command_beside_the_server_opens_at_once,
    an_old_schema_is_refused,
    reading_the_schema_version_changes_nothing,
    committed_rows_survive_reopening,
    closing_finishes_earlier_transactions_and_rejects_later_ones,
);

async fn a_second_server_is_refused(world: World) {
    let second = Store::open(options(world.location.clone(), &world.clock)).await;
    assert!(matches!(second.err(), Some(Error::InUse(message)) if message.contains("another herm server")));
}

async fn opening_waits_for_a_server_that_is_stopping(world: World) {
    let World { store, clock, location, _dir, .. } = world;
    let mut second = std::pin::pin!(Store::open(options(location.clone(), &clock)));
    // The second server keeps retrying while the first one holds the lock.
    assert!(futures_util::poll!(&mut second).is_pending());
    store.close().await;
    drop(store);
    wait_until_unlocked(&location).await;
    second.await.unwrap();
}

/// Waits until no PostgreSQL connection holds the lock on the database. PostgreSQL releases the lock only some time
/// after the connection was closed, and a second server retries only for a limited time.
async fn wait_until_unlocked(location: &Location) {
    let Location::Postgres(url) = location else { return };
    let mut connection = sqlx::PgConnection::connect(url.expose_secret()).await.unwrap();
    let lock_count = "SELECT COUNT(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database \
        WHERE locktype = 'advisory' AND datname = current_database()";
    while sqlx::query_as::<_, (i64,)>(lock_count).fetch_one(&mut connection).await.unwrap().0 > 0 {
        tokio::task::yield_now().await;
    }
}

async fn a_command_beside_the_server_opens_at_once(world: World) {
    let deployment = world.deployment().await;
    world.run(&deployment).await;
    let beside = Options { exclusive: false, ..options(world.location.clone(), &world.clock) };
    let beside = Store::open(beside).await.unwrap();
    assert_eq!(beside.read("len", |tx| Box::pin(queue::len(tx))).await.unwrap(), 1);
    beside.transaction("release", |tx| Box::pin(queue::release_all(tx))).await.unwrap();
}

async fn an_old_schema_is_refused(world: World) {
    let fresh = match &world.location {
        Location::Sqlite(dir) => Location::Sqlite(dir.join("fresh")),
        Location::Postgres(_) => crate::engine::fresh_location().await,
    };
    let unmigrated = Options { migrate: false, ..options(fresh, &world.clock) };
    let refused = Store::open(unmigrated).await.err().map(|error| error.to_string());
    assert!(refused.as_deref().is_some_and(|message| message.contains("herm migrate")), "{refused:?}");
}

async fn reading_the_schema_version_changes_nothing(world: World) {
    let fresh = match &world.location {
        Location::Sqlite(dir) => Location::Sqlite(dir.join("fresh")),
        Location::Postgres(_) => crate::engine::fresh_location().await,
    };
    for _ in 0..2 {
        assert_eq!(schema_version(&fresh).await.unwrap(), None);
    }
    if let Location::Sqlite(dir) = &fresh {
        assert!(!dir.exists());
    }
    // Reading the schema version also works while a server holds the lock on the database.
    assert_eq!(schema_version(&world.location).await.unwrap(), Some(SCHEMA_VERSION));
}

async fn committed_rows_survive_reopening(world: World) {
    let deployment = world.deployment().await;
    let World { store, clock, location, _dir, .. } = world;
    drop(store);
    // The lock is released when the old store's last connection closes, which happens in the background.
    let reopened = loop {
        match Store::open(options(location.clone(), &clock)).await {
            Ok(store) => break store,
            Err(Error::InUse(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    };
    let id = deployment.deployment_id;
    let found =
        reopened.read("find", move |tx| Box::pin(herm_store::deployments::find(tx, id))).await.unwrap();
    assert_eq!(found, Some(deployment));
}

async fn closing_finishes_earlier_transactions_and_rejects_later_ones(world: World) {
    let deployment = world.deployment().await;
    let last = world.store.transaction("release", |tx| Box::pin(queue::release_all(tx)));
    let ((), last) = tokio::join!(biased; world.store.close(), last);
    assert!(matches!(last, Ok(0) | Err(Error::Closed)), "{last:?}");
    let late = world.store.transaction("late", |tx| Box::pin(queue::release_all(tx))).await;
    assert!(matches!(late, Err(Error::Closed)), "{late:?}");
    if let Location::Sqlite(dir) = &world.location {
        let log_bytes = std::fs::metadata(dir.join("herm.sqlite3-wal")).map_or(0, |log| log.len());
        assert_eq!(log_bytes, 0);
    }
    world.store.close().await;
    let beside = Options { exclusive: false, ..options(world.location.clone(), &world.clock) };
    let beside = Store::open(beside).await.unwrap();
    let id = deployment.deployment_id;
    let found = beside.read("find", move |tx| Box::pin(herm_store::deployments::find(tx, id))).await.unwrap();
    assert_eq!(found, Some(deployment));
}
