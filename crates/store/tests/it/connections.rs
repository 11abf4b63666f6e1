//! Records of the connections that programs in sandboxes attempt: their assignment to tool calls, the limits on their
//! number, and their erasure.

use herm_store::connections::{
    self, CallConnections, EndedConnection, MAX_LISTED_PER_CALL, MAX_PER_CALL, NewConnection,
};
use herm_store::journal::{self, Position};
use herm_store::runs::{self, Transition};
use herm_store::{Error, deployments, queue, threads};
use herm_types::connection::ConnectionVerdict;
use herm_types::deployment::Deployment;
use herm_types::id::EventId;
use herm_types::run::StepKind;
use herm_types::{DeploymentId, RunId};

use crate::engine::{World, on_both_engines};

on_both_engines!(
    an_attempt_belongs_to_the_call_that_it_names,
    an_attempt_cannot_name_a_closed_or_foreign_call,
    concurrent_attempts_have_a_row_each,
    attempts_beyond_the_limit_of_a_call_are_summed_up,
    attempts_without_a_call_are_bounded_to_the_latest,
    an_end_is_recorded_once,
    connections_left_open_by_a_killed_server_end_with_unknown_bytes,
    connections_are_deleted_with_their_thread,
    connections_are_deleted_with_their_deployment_even_if_recorded_late,
    hostile_texts_are_truncated_and_stored,
);

/// Inserts an active run in the deployment's default thread. The first step of the run has `calls` tool calls without a
/// result.
async fn run_with_calls(world: &World, deployment: &Deployment, calls: i64) -> RunId {
    let (run_id, _) = world.run(deployment).await;
    let thread_id = deployment.default_thread_id;
    world
        .store
        .transaction("begin", move |tx| {
            Box::pin(async move {
                runs::transition(tx, run_id, Transition::Start).await?;
                threads::touch(tx, thread_id, Some(run_id), 0).await?;
                for call_no in 0..=calls {
                    let kind = if call_no == 0 { StepKind::Model } else { StepKind::Tool };
                    let position = Position { run_id, step_no: 1, call_no };
                    journal::record_intent(tx, position, kind, "shell", "\"\"").await?;
                }
                Ok::<_, Error>(())
            })
        })
        .await
        .unwrap();
    run_id
}

async fn finish_call(world: &World, run_id: RunId, call_no: i64) {
    let position = Position { run_id, step_no: 1, call_no };
    world
        .store
        .transaction("finish", move |tx| {
            Box::pin(async move { journal::record_result(tx, position, "{}").await })
        })
        .await
        .unwrap();
}

fn attempt(id: i64) -> NewConnection {
    NewConnection { connection_id: id, host: format!("h{id}.example"), port: 443, verdict: Ok(()) }
}

async fn record(
    world: &World,
    deployment_id: DeploymentId,
    claimed: Option<Position>,
    new: NewConnection,
) -> Result<i64, Error> {
    world
        .store
        .transaction("record_connection", move |tx| {
            Box::pin(async move { connections::record(tx, deployment_id, claimed, &new).await })
        })
        .await
}

async fn end(world: &World, connection_id: i64, sent_bytes: i64) {
    let ended = [EndedConnection { connection_id, sent_bytes, received_bytes: 2 * sent_bytes, error: None }];
    world
        .store
        .transaction("end", move |tx| Box::pin(async move { connections::end(tx, &ended).await }))
        .await
        .unwrap();
}

async fn of_call(world: &World, deployment_id: DeploymentId, run_id: RunId, call_no: i64) -> CallConnections {
    let mut calls = world
        .store
        .read("of_calls", move |tx| {
            Box::pin(connections::of_calls(tx, deployment_id, run_id, (1, call_no), (1, call_no)))
        })
        .await
        .unwrap();
    calls.remove(&(1, call_no)).unwrap_or_default()
}

fn hosts(of_call: &CallConnections) -> Vec<&str> {
    of_call.listed.iter().map(|connection| connection.host.as_str()).collect()
}

async fn an_attempt_belongs_to_the_call_that_it_names(world: World) {
    let deployment = world.deployment().await;
    let id = deployment.deployment_id;
    let run_id = run_with_calls(&world, &deployment, 2).await;
    let first = Position { run_id, step_no: 1, call_no: 1 };
    assert_eq!(record(&world, id, Some(first), attempt(1)).await.unwrap(), 1);
    let denied = NewConnection { verdict: Err("not on the list".to_owned()), ..attempt(2) };
    record(&world, id, Some(first), denied).await.unwrap();
    // A connection attempt that does not name a tool call belongs to the latest tool call without a result, here tool
    // call 2.
    record(&world, id, None, attempt(3)).await.unwrap();
    let of_first = of_call(&world, id, run_id, 1).await;
    assert_eq!((hosts(&of_first), of_first.total), (vec!["h1.example", "h2.example"], 2));
    let [open, denied] = of_first.listed.as_slice() else { panic!("{of_first:?}") };
    assert_eq!((open.verdict, open.sent_bytes, open.ended_at), (ConnectionVerdict::Allowed, None, None));
    assert_eq!(
        (denied.verdict, denied.reason.as_deref()),
        (ConnectionVerdict::Denied, Some("not on the list"))
    );
    assert_eq!((denied.sent_bytes, denied.received_bytes), (Some(0), Some(0)));
    assert_eq!(denied.ended_at, Some(denied.opened_at));
    assert_eq!(hosts(&of_call(&world, id, run_id, 2).await), ["h3.example"]);
    assert!(record(&world, id, None, attempt(3)).await.is_err(), "duplicate id accepted");
}

async fn an_attempt_cannot_name_a_closed_or_foreign_call(world: World) {
    let (ours, theirs) = (world.deployment().await, world.deployment().await);
    let id = ours.deployment_id;
    let our_run = run_with_calls(&world, &ours, 2).await;
    let their_run = run_with_calls(&world, &theirs, 1).await;
    finish_call(&world, our_run, 1).await;
    let claimed = [
        Position { run_id: our_run, step_no: 1, call_no: 1 },
        Position { run_id: our_run, step_no: 1, call_no: 0 },
        Position { run_id: our_run, step_no: 7, call_no: 1 },
        Position { run_id: their_run, step_no: 1, call_no: 1 },
        Position { run_id: world.ids.next(), step_no: 1, call_no: 1 },
        Position { run_id: our_run, step_no: i64::MIN, call_no: i64::MAX },
    ];
    for (number, position) in (1..).zip(claimed) {
        record(&world, id, Some(position), attempt(number)).await.unwrap();
    }
    assert_eq!(of_call(&world, id, our_run, 2).await.total, 6, "all belong to the open call");
    assert_eq!(of_call(&world, theirs.deployment_id, their_run, 1).await, CallConnections::default());
    assert_eq!(of_call(&world, id, our_run, 1).await, CallConnections::default());
    // The run ends before tool call 2 has a result. From then on, no connection attempt is assigned to that tool call.
    world
        .store
        .transaction("end", move |tx| {
            Box::pin(async move {
                runs::transition(tx, our_run, Transition::Cancel(None)).await?;
                threads::touch(tx, ours.default_thread_id, None, 0).await
            })
        })
        .await
        .unwrap();
    let cut_off = Position { run_id: our_run, step_no: 1, call_no: 2 };
    record(&world, id, Some(cut_off), attempt(7)).await.unwrap();
    assert_eq!(of_call(&world, id, our_run, 2).await.total, 6);
}

async fn concurrent_attempts_have_a_row_each(world: World) {
    let deployment = world.deployment().await;
    let id = deployment.deployment_id;
    let run_id = run_with_calls(&world, &deployment, 1).await;
    let recorded = (1..=40).map(|number| record(&world, id, None, attempt(number)));
    futures_util::future::try_join_all(recorded).await.unwrap();
    let of_call = of_call(&world, id, run_id, 1).await;
    assert_eq!((of_call.listed.len(), of_call.total), (40, 40));
    // Once the run's only tool call has a result, further connection attempts belong to no tool call. Each of them
    // still has its own row.
    finish_call(&world, run_id, 1).await;
    let recorded = (41..=80).map(|number| record(&world, id, None, attempt(number)));
    futures_util::future::try_join_all(recorded).await.unwrap();
}

/// Records one connection attempt for each of the connection ids `numbers`, all in one transaction. Returns the ids of
/// the rows that store the attempts.
async fn record_many(
    world: &World,
    deployment_id: DeploymentId,
    numbers: std::ops::RangeInclusive<i64>,
) -> Vec<i64> {
    world
        .store
        .transaction("record_many", move |tx| {
            Box::pin(async move {
                let mut ids = Vec::new();
                for number in numbers {
                    ids.push(connections::record(tx, deployment_id, None, &attempt(number)).await?);
                }
                Ok::<_, Error>(ids)
            })
        })
        .await
        .unwrap()
}

async fn attempts_beyond_the_limit_of_a_call_are_summed_up(world: World) {
    let deployment = world.deployment().await;
    let id = deployment.deployment_id;
    let run_id = run_with_calls(&world, &deployment, 1).await;
    record_many(&world, id, 1..=MAX_PER_CALL).await;
    let beyond = record_many(&world, id, MAX_PER_CALL + 1..=MAX_PER_CALL + 20).await;
    assert!(beyond.iter().all(|row| *row == beyond[0]), "one row sums up all: {beyond:?}");
    for row in beyond.iter().take(2) {
        end(&world, *row, 5).await;
    }
    let of_call = of_call(&world, id, run_id, 1).await;
    assert_eq!(of_call.total, MAX_PER_CALL + 20);
    assert_eq!(of_call.listed.len(), usize::try_from(MAX_LISTED_PER_CALL).unwrap());
    assert_eq!(of_call.listed[0].host, "h1.example");
}

async fn attempts_without_a_call_are_bounded_to_the_latest(world: World) {
    let deployment = world.deployment().await;
    record_many(&world, deployment.deployment_id, 1..=MAX_PER_CALL + 20).await;
    // Recording a connection fails if its id is already stored. It first displaces the oldest stored connection, number
    // 21, so that number is not tested. Only the last call may succeed, because the displacement then remains.
    for (number, is_stored) in [(22, true), (MAX_PER_CALL + 20, true), (20, false)] {
        let again = record(&world, deployment.deployment_id, None, attempt(number)).await;
        assert_eq!(again.is_err(), is_stored, "{number}");
    }
}

async fn an_end_is_recorded_once(world: World) {
    let deployment = world.deployment().await;
    let id = deployment.deployment_id;
    let run_id = run_with_calls(&world, &deployment, 1).await;
    record(&world, id, None, attempt(1)).await.unwrap();
    // A connection can outlive its tool call, and its end can be reported twice. Only the first report counts.
    finish_call(&world, run_id, 1).await;
    world.clock.advance_ms(1000);
    for sent_bytes in [10, 99] {
        end(&world, 1, sent_bytes).await;
    }
    end(&world, 404, 1).await;
    let ended = of_call(&world, id, run_id, 1).await.listed.remove(0);
    assert_eq!((ended.sent_bytes, ended.received_bytes, ended.error.clone()), (Some(10), Some(20), None));
    assert_eq!(ended.ended_at, Some(ended.opened_at.plus_ms(1000)));
}

async fn connections_left_open_by_a_killed_server_end_with_unknown_bytes(world: World) {
    let deployment = world.deployment().await;
    let id = deployment.deployment_id;
    let run_id = run_with_calls(&world, &deployment, 1).await;
    record_many(&world, id, 1..=2).await;
    end(&world, 1, 10).await;
    for left in [1, 0] {
        let ended =
            world.store.transaction("end_all", |tx| Box::pin(connections::end_all(tx))).await.unwrap();
        assert_eq!(ended, left);
    }
    // A late report about a connection of the killed server changes nothing.
    end(&world, 2, 10).await;
    let listed = of_call(&world, id, run_id, 1).await.listed;
    assert_eq!((listed[0].sent_bytes, listed[0].error.as_deref()), (Some(10), None));
    assert_eq!((listed[1].sent_bytes, listed[1].received_bytes), (None, None));
    assert!(listed[1].ended_at.is_some());
    assert!(listed[1].error.as_deref().is_some_and(|error| error.contains("was killed")));
}

async fn connections_are_deleted_with_their_thread(world: World) {
    let deployment = world.deployment().await;
    let (id, thread_id) = (deployment.deployment_id, deployment.default_thread_id);
    let run_id = run_with_calls(&world, &deployment, 3).await;
    record_many(&world, id, 1..=MAX_PER_CALL + 1).await;
    for call_no in [1, 2] {
        let call = Position { run_id, step_no: 1, call_no };
        record(&world, id, Some(call), attempt(5000 + call_no)).await.unwrap();
    }
    let mut from = Some(EventId(0));
    while let Some(begin) = from {
        from = world
            .store
            .transaction("erase", move |tx| {
                Box::pin(async move {
                    threads::delete(tx, thread_id).await?;
                    threads::erase_contents(tx, id, thread_id, begin).await
                })
            })
            .await
            .unwrap();
    }
    for call_no in 1..=3 {
        assert_eq!(of_call(&world, id, run_id, call_no).await, CallConnections::default());
    }
}

async fn connections_are_deleted_with_their_deployment_even_if_recorded_late(world: World) {
    let gone = world.deployment().await;
    let id = gone.deployment_id;
    let run_id = run_with_calls(&world, &gone, 1).await;
    let call = Position { run_id, step_no: 1, call_no: 1 };
    record(&world, id, Some(call), attempt(1)).await.unwrap();
    world
        .store
        .transaction("delete", move |tx| {
            Box::pin(async move {
                queue::remove_of_deployment(tx, gone.deployment_id).await?;
                deployments::delete(tx, &gone).await
            })
        })
        .await
        .unwrap();
    let erase = async {
        while !world
            .store
            .transaction("erase", move |tx| Box::pin(deployments::erase_contents(tx, id)))
            .await
            .unwrap()
        {}
    };
    // A connection attempt during the teardown of the deployment is either recorded and then erased, or rejected
    // because the deployment is deleted.
    let late = (2..40).map(|number| record(&world, id, Some(call), attempt(number)));
    let ((), late) = tokio::join!(erase, futures_util::future::join_all(late));
    let refused = |result: &Result<i64, Error>| matches!(result, Err(Error::DeploymentDeleted));
    assert!(late.iter().all(|result| result.is_ok() || refused(result)), "{late:?}");
    let after = record(&world, id, Some(call), attempt(100)).await;
    assert!(refused(&after), "{after:?}");
    assert_eq!(of_call(&world, id, run_id, 1).await, CallConnections::default());
}

async fn hostile_texts_are_truncated_and_stored(world: World) {
    let deployment = world.deployment().await;
    let id = deployment.deployment_id;
    let run_id = run_with_calls(&world, &deployment, 1).await;
    let long = "é".repeat(100_000);
    let new = NewConnection { host: format!("a\0{long}"), verdict: Err("'\0".to_owned()), ..attempt(1) };
    record(&world, id, None, new).await.unwrap();
    let kept = of_call(&world, id, run_id, 1).await.listed.remove(0);
    assert!(kept.host.starts_with("a\u{fffd}éé") && kept.host.len() < 600, "{}", kept.host.len());
    assert_eq!(kept.reason.as_deref(), Some("'\u{fffd}"));
}
