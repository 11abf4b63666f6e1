//! Opening a database: held by one server, read beside it, refused when its schema is not ours.

use herm_store::{Error, Location, Options, SCHEMA_VERSION, Store, queue, schema_version};
use secrecy::ExposeSecret as _;
use sqlx::Connection as _;

use crate::engine::{World, on_both_engines, options};

on_both_engines!(
    a_second_server_is_refused,
    a_server_that_is_just_going_is_waited_for,
    a_command_beside_the_server_is_not,
    a_schema_that_was_not_migrated_is_refused,
    a_look_at_the_schema_changes_nothing,
    what_was_committed_is_there_after_reopening,
    a_closed_store_has_written_what_it_was_given_and_takes_nothing_more,
);

async fn a_second_server_is_refused(world: World) {
    let second = Store::open(options(world.location.clone(), &world.clock)).await;
    assert!(matches!(second.err(), Some(Error::InUse(message)) if message.contains("another herm server")));
}

async fn a_server_that_is_just_going_is_waited_for(world: World) {
    let World { store, clock, location, _dir, .. } = world;
    let mut second = std::pin::pin!(Store::open(options(location.clone(), &clock)));
    // It has looked once, or is about to.
    assert!(futures_util::poll!(&mut second).is_pending());
    store.close().await;
    drop(store);
    until_free(&location).await;
    second.await.unwrap();
}

/// Waits until nobody holds the database: PostgreSQL sees some time after it that a connection was closed, and how long
/// the second server tries is bounded.
async fn until_free(location: &Location) {
    let Location::Postgres(url) = location else { return };
    let mut connection = sqlx::PgConnection::connect(url.expose_secret()).await.unwrap();
    let holders = "SELECT COUNT(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database \
        WHERE locktype = 'advisory' AND datname = current_database()";
    while sqlx::query_as::<_, (i64,)>(holders).fetch_one(&mut connection).await.unwrap().0 > 0 {
        tokio::task::yield_now().await;
    }
}

async fn a_command_beside_the_server_is_not(world: World) {
    let deployment = world.deployment().await;
    world.run(&deployment).await;
    let beside = Options { exclusive: false, ..options(world.location.clone(), &world.clock) };
    let beside = Store::open(beside).await.unwrap();
    assert_eq!(beside.read("len", |tx| Box::pin(queue::len(tx))).await.unwrap(), 1);
    beside.transaction("release", |tx| Box::pin(queue::release_all(tx))).await.unwrap();
}

async fn a_schema_that_was_not_migrated_is_refused(world: World) {
    let fresh = match &world.location {
        Location::Sqlite(dir) => Location::Sqlite(dir.join("fresh")),
        Location::Postgres(_) => crate::engine::fresh_location().await,
    };
    let unmigrated = Options { migrate: false, ..options(fresh, &world.clock) };
    let refused = Store::open(unmigrated).await.err().map(|error| error.to_string());
    assert!(refused.as_deref().is_some_and(|message| message.contains("herm migrate")), "{refused:?}");
}

async fn a_look_at_the_schema_changes_nothing(world: World) {
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
    // Beside the server, which holds it.
    assert_eq!(schema_version(&world.location).await.unwrap(), Some(SCHEMA_VERSION));
}

async fn what_was_committed_is_there_after_reopening(world: World) {
    let deployment = world.deployment().await;
    let World { store, clock, location, _dir, .. } = world;
    drop(store);
    // The old server's hold ends with its last connection, which closes in the background.
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

async fn a_closed_store_has_written_what_it_was_given_and_takes_nothing_more(world: World) {
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
