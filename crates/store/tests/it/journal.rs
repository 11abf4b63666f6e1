//! The journal: each entry has one intent and then one result.

use herm_store::journal::{self, Position};
use herm_store::{Error, runs};
use herm_types::run::StepKind;

use crate::engine::{World, on_both_engines};

on_both_engines!(
    a_step_has_no_result_until_one_is_recorded,
    a_result_is_recorded_once,
    steps_of_a_thread_are_returned_in_order,
    a_context_advances_by_whole_blocks,
);

async fn intend(world: &World, position: Position, intent: &'static str) {
    world
        .store
        .transaction("intend", move |tx| {
            Box::pin(
                async move { journal::record_intent(tx, position, StepKind::Tool, "shell", intent).await },
            )
        })
        .await
        .unwrap();
}

async fn finish(world: &World, position: Position) -> Result<(), Error> {
    world
        .store
        .transaction("finish", move |tx| {
            Box::pin(async move { journal::record_result(tx, position, "{}").await })
        })
        .await
}

async fn a_step_has_no_result_until_one_is_recorded(world: World) {
    let deployment = world.deployment().await;
    let (run_id, _) = world.run(&deployment).await;
    let position = Position { run_id, step_no: 1, call_no: 1 };
    intend(&world, position, "first").await;
    intend(&world, position, "again").await;
    let thread_id = deployment.default_thread_id;
    let steps = world
        .store
        .read("steps", move |tx| Box::pin(journal::of_thread(tx, thread_id, run_id)))
        .await
        .unwrap();
    assert_eq!(steps.len(), 1);
    assert_eq!((steps[0].intent.as_str(), steps[0].result.as_deref()), ("again", None));
}

async fn a_result_is_recorded_once(world: World) {
    let deployment = world.deployment().await;
    let (run_id, _) = world.run(&deployment).await;
    let position = Position { run_id, step_no: 1, call_no: 1 };
    assert!(finish(&world, position).await.is_err(), "there is no intent");
    intend(&world, position, "once").await;
    finish(&world, position).await.unwrap();
    assert!(finish(&world, position).await.is_err(), "there is a result");
}

async fn steps_of_a_thread_are_returned_in_order(world: World) {
    let deployment = world.deployment().await;
    let (first, second) = (world.run(&deployment).await.0, world.run(&deployment).await.0);
    let expected = [(first, 1, 0), (first, 1, 1), (first, 2, 0), (second, 1, 0)]
        .map(|(run_id, step_no, call_no)| Position { run_id, step_no, call_no });
    for position in expected.into_iter().rev() {
        intend(&world, position, "x").await;
    }
    let thread_id = deployment.default_thread_id;
    let steps_from =
        |from| world.store.read("steps", move |tx| Box::pin(journal::of_thread(tx, thread_id, from)));
    let positions: Vec<Position> =
        steps_from(first).await.unwrap().into_iter().map(|step| step.position).collect();
    assert_eq!(positions, expected);
    assert_eq!(steps_from(second).await.unwrap().len(), 1);
}

async fn a_context_advances_by_whole_blocks(world: World) {
    let deployment = world.deployment().await;
    let thread_id = deployment.default_thread_id;
    let mut made = Vec::new();
    let mut begins_with = Vec::new();
    for _ in 0..9 {
        made.push(world.run(&deployment).await.0);
        let first = world
            .store
            .read("first", move |tx| Box::pin(async move { runs::first_of_context(tx, thread_id, 3).await }))
            .await
            .unwrap()
            .unwrap();
        begins_with.push(made.iter().position(|run_id| *run_id == first).unwrap());
    }
    assert_eq!(begins_with, [0, 0, 0, 0, 0, 3, 3, 3, 6]);
}
