//! Deployments: listed in pages that stay right, erased to the last row.

use herm_store::{deployments, queue, threads};
use herm_types::deployment::{Deployment, DeploymentStatus};
use herm_types::paging::PageRequest;

use crate::engine::{World, on_both_engines};

on_both_engines!(
    a_deployment_reads_back_as_it_was_made,
    pages_neither_repeat_nor_skip_while_rows_are_added,
    filters_and_accounts_part_deployments,
    a_deleted_deployment_is_erased_to_the_last_row,
);

async fn a_deployment_reads_back_as_it_was_made(world: World) {
    let made = world.deployment().await;
    let id = made.deployment_id;
    let found = world.store.read("find", move |tx| Box::pin(deployments::find(tx, id))).await.unwrap();
    assert_eq!(found, Some(made));
}

async fn page(
    world: &World,
    of: &Deployment,
    filter: deployments::Filter,
    page: PageRequest,
) -> Vec<Deployment> {
    let account_id = of.account_id;
    world
        .store
        .read("list", move |tx| {
            Box::pin(async move { deployments::list(tx, account_id, &filter, &page).await })
        })
        .await
        .unwrap()
}

async fn pages_neither_repeat_nor_skip_while_rows_are_added(world: World) {
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(world.deployment().await.deployment_id);
    }
    let any = world.deployment().await;
    made.push(any.deployment_id);
    let (mut read, mut after) = (Vec::new(), None);
    loop {
        let rows = page(&world, &any, deployments::Filter::default(), PageRequest { limit: 2, after }).await;
        // One more is made between any two pages; it is newer than what was read.
        world.deployment().await;
        let more = rows.len() > 2;
        read.extend(rows.iter().take(2).map(|row| row.deployment_id));
        after = read.last().map(ToString::to_string);
        if !more {
            break;
        }
    }
    made.reverse();
    assert_eq!(read, made);
}

async fn filters_and_accounts_part_deployments(world: World) {
    let ours = world.deployment().await;
    let mut other_customer = world.new_deployment("another customer");
    other_customer.status = DeploymentStatus::Error;
    let mut other_account = world.new_deployment("customer");
    other_account.account_id = world.ids.next();
    let inserted = [other_customer.clone(), other_account.clone()];
    world
        .store
        .transaction("create", move |tx| {
            Box::pin(async move {
                for deployment in &inserted {
                    deployments::insert(tx, deployment).await?;
                }
                Ok::<_, herm_store::Error>(())
            })
        })
        .await
        .unwrap();
    let listed = async |filter| {
        let rows = page(&world, &ours, filter, PageRequest::default()).await;
        rows.into_iter().map(|row| row.deployment_id).collect::<Vec<_>>()
    };
    let all = deployments::Filter::default();
    assert_eq!(listed(all.clone()).await, [other_customer.deployment_id, ours.deployment_id]);
    let of_customer = deployments::Filter { customer_id: Some("customer".to_owned()), ..all.clone() };
    assert_eq!(listed(of_customer).await, [ours.deployment_id]);
    let in_error = deployments::Filter { status: Some(DeploymentStatus::Error), ..all.clone() };
    assert_eq!(listed(in_error).await, [other_customer.deployment_id]);
    let one = deployments::Filter { deployment_id: Some(ours.deployment_id), ..all };
    assert_eq!(listed(one).await, [ours.deployment_id]);
}

async fn a_deleted_deployment_is_erased_to_the_last_row(world: World) {
    let kept = world.deployment().await;
    world.run(&kept).await;
    let gone = world.deployment().await;
    world.run(&gone).await;
    let (deployment_id, thread_id) = (gone.deployment_id, gone.default_thread_id);
    let deleted = world
        .store
        .transaction("delete", move |tx| {
            Box::pin(async move {
                queue::remove_of_deployment(tx, deployment_id).await?;
                let once = deployments::delete(tx, &gone).await?;
                Ok::<_, herm_store::Error>((once, deployments::delete(tx, &gone).await?))
            })
        })
        .await
        .unwrap();
    assert_eq!(deleted, (true, false));
    while !world
        .store
        .transaction("erase", move |tx| Box::pin(deployments::erase_contents(tx, deployment_id)))
        .await
        .unwrap()
    {}
    let left = world
        .store
        .read("left", move |tx| Box::pin(threads::find(tx, deployment_id, thread_id)))
        .await
        .unwrap();
    assert_eq!(left, None);
    let items = world.store.read("items", |tx| Box::pin(queue::len(tx))).await.unwrap();
    assert_eq!(items, 1, "the other deployment's work is untouched");
}
