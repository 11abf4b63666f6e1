//! Deployments: consistent pages, versions, and complete erasure.

use herm_store::skills::Skill;
use herm_store::{deployments, queue, runs, skills, threads};
use herm_types::Timestamp;
use herm_types::deployment::{Deployment, DeploymentItem, DeploymentStatus};
use herm_types::paging::PageRequest;
use herm_types::skill::SkillSource;

use crate::engine::{World, on_both_engines};

on_both_engines!(
    a_deployment_reads_back_as_inserted,
    pages_neither_repeat_nor_skip_while_rows_are_added,
    lists_are_limited_to_filter_and_account,
    a_deleted_deployment_is_erased_to_the_last_row,
    a_change_adds_a_version_and_a_run_keeps_its_own,
    skills_are_replaced_as_a_list_and_keep_their_order,
);

async fn a_deployment_reads_back_as_inserted(world: World) {
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
) -> Vec<DeploymentItem> {
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
        // Between two pages, a new deployment is added. It is newer than all rows read so far and must not appear on
        // later pages.
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

async fn lists_are_limited_to_filter_and_account(world: World) {
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

async fn a_change_adds_a_version_and_a_run_keeps_its_own(world: World) {
    let mut deployment = world.deployment().await;
    let (run_id, _) = world.run(&deployment).await;
    let id = deployment.deployment_id;
    let begun = deployment.clone();
    world
        .store
        .transaction("begin", move |tx| {
            Box::pin(async move {
                let thread_id = begun.default_thread_id;
                threads::touch(tx, thread_id, Some(run_id), 0).await?;
                runs::transition(tx, run_id, runs::Transition::Start).await
            })
        })
        .await
        .unwrap();
    for prompt in ["second", "third"] {
        deployment.version += 1;
        deployment.system_prompt = prompt.to_owned();
        let changed = deployment.clone();
        world
            .store
            .transaction("change", move |tx| {
                Box::pin(async move {
                    deployments::find_and_lock(tx, id).await?;
                    deployments::update(tx, &changed).await
                })
            })
            .await
            .unwrap();
    }
    let as_of = async |version: Option<i64>| {
        let found = world.store.read("find", move |tx| Box::pin(deployments::find_as_of(tx, id, version)));
        found.await.unwrap().unwrap()
    };
    let version = world.store.read("version", move |tx| Box::pin(runs::version(tx, run_id))).await.unwrap();
    assert_eq!(version, Some(1));
    let kept = as_of(version).await;
    assert_eq!((kept.version, kept.system_prompt.as_str()), (1, "Be brief."));
    assert_eq!(as_of(None).await, deployment);
    // Version 2 was removed, because no run uses it any more. Reading version 2 therefore returns the current version,
    // 3.
    assert_eq!(as_of(Some(2)).await, deployment);
}

async fn skills_are_replaced_as_a_list_and_keep_their_order(world: World) {
    let deployment = world.deployment().await;
    let id = deployment.deployment_id;
    let now = Timestamp::from_micros(1);
    let skill = |name: &str| Skill {
        skill_id: world.ids.next(),
        name: name.to_owned(),
        source: SkillSource::Inline,
        path: None,
        url: None,
        description: Some("d".to_owned()),
        content: Some("c".to_owned()),
        created_at: now,
        updated_at: now,
    };
    let given = [skill("b"), skill("a"), skill("c")];
    for wanted in [given.to_vec(), vec![given[2].clone(), given[0].clone()], Vec::new()] {
        let written = wanted.clone();
        let replace = world.store.transaction("replace", move |tx| {
            Box::pin(async move { skills::replace(tx, id, &written).await })
        });
        replace.await.unwrap();
        let found =
            world.store.read("list", move |tx| Box::pin(skills::of_deployment(tx, id))).await.unwrap();
        assert_eq!(found, wanted);
    }
}
