//! Messages: a user's message is pending until a step reads it, and lists begin with the newest message.

use herm_store::journal::{self, Position};
use herm_store::steering::{self, StoredRequest};
use herm_store::{Error, messages, runs};
use herm_types::run::StepKind;
use herm_types::steering::{SteeringKind, SteeringRequest, SteeringStatus};
use herm_types::thread::{Attachment, AttachmentType, Role};
use herm_types::{MessageId, SteeringId};

use crate::engine::{World, add_message, on_both_engines};

on_both_engines!(
    a_message_is_pending_until_a_step_reads_it,
    attachments_read_back_as_sent,
    the_messages_of_a_runs_latest_steps_are_read_again,
    an_answer_that_its_run_never_read_becomes_input,
    pages_lead_back_to_the_first_message,
    the_newest_message_and_run_are_found_across_accounts,
);

async fn the_newest_message_and_run_are_found_across_accounts(world: World) {
    let newest = || {
        world.store.read("newest", |tx| {
            Box::pin(async move { Ok::<_, Error>((messages::newest(tx).await?, runs::newest(tx).await?)) })
        })
    };
    assert_eq!(newest().await.unwrap(), (None, None));
    let (first, second) = (world.deployment().await, world.deployment().await);
    world.run(&second).await;
    let (run_id, message_id) = world.run(&first).await;
    assert_eq!(newest().await.unwrap(), (Some(message_id), Some(run_id)));
}

async fn a_message_is_pending_until_a_step_reads_it(world: World) {
    let deployment = world.deployment().await;
    let (run_id, message_id) = world.run(&deployment).await;
    let pending = || world.store.read("pending", move |tx| Box::pin(messages::count_pending(tx, run_id)));
    assert_eq!(pending().await.unwrap(), 1);
    world
        .store
        .transaction("pick_up", move |tx| {
            Box::pin(async move { messages::pick_up(tx, &[message_id], 3).await })
        })
        .await
        .unwrap();
    assert_eq!(pending().await.unwrap(), 0);
    let thread_id = deployment.default_thread_id;
    let heard = world
        .store
        .read("heard", move |tx| Box::pin(messages::of_users(tx, thread_id, run_id)))
        .await
        .unwrap();
    assert_eq!((heard[0].before_step, heard[0].content.as_str()), (Some(3), "hello"));
}

async fn attachments_read_back_as_sent(world: World) {
    let deployment = world.deployment().await;
    let (run_id, _) = world.run(&deployment).await;
    let thread_id = deployment.default_thread_id;
    let attachments = vec![
        Attachment {
            kind: AttachmentType::Image,
            url: Some("https://a.example/b?c=\"d\"".to_owned()),
            path: None,
        },
        Attachment { kind: AttachmentType::Audio, url: None, path: Some("récit/1.ogg".to_owned()) },
    ];
    let message = messages::NewMessage {
        message_id: world.ids.next(),
        thread_id,
        run_id,
        role: Role::User,
        content: String::new(),
        attachments: attachments.clone(),
        truncated: false,
        answers: None,
    };
    let added = world
        .store
        .transaction("add", move |tx| Box::pin(async move { messages::insert(tx, &message).await }));
    added.await.unwrap();
    let heard = world.store.read("heard", move |tx| Box::pin(messages::of_users(tx, thread_id, run_id)));
    let heard = heard.await.unwrap();
    assert_eq!((&heard[0].attachments, &heard[1].attachments), (&Vec::new(), &attachments));
    let page = world.store.read("page", move |tx| Box::pin(messages::page_before(tx, thread_id, None, 9)));
    assert_eq!(page.await.unwrap()[0].attachments, attachments);
}

async fn the_messages_of_a_runs_latest_steps_are_read_again(world: World) {
    let deployment = world.deployment().await;
    let (run_id, first) = world.run(&deployment).await;
    let thread_id = deployment.default_thread_id;
    let mut all = vec![first];
    for _ in 0..2 {
        let message = messages::NewMessage {
            message_id: world.ids.next(),
            thread_id,
            run_id,
            role: Role::User,
            content: "more".to_owned(),
            attachments: Vec::new(),
            truncated: false,
            answers: None,
        };
        all.push(message.message_id);
        let added = world
            .store
            .transaction("add", move |tx| Box::pin(async move { messages::insert(tx, &message).await }));
        added.await.unwrap();
    }
    let picked = all.clone();
    let pick_up = world.store.transaction("pick_up", move |tx| {
        Box::pin(async move {
            messages::pick_up(tx, &picked[..1], 1).await?;
            messages::pick_up(tx, &picked[1..2], 2).await
        })
    });
    pick_up.await.unwrap();
    for (from_step, expected) in [(1, &all[..]), (2, &all[1..]), (3, &all[2..])] {
        let read = world
            .store
            .read("read", move |tx| Box::pin(messages::of_run_from(tx, thread_id, run_id, from_step)));
        let ids: Vec<MessageId> = read.await.unwrap().into_iter().map(|message| message.message_id).collect();
        assert_eq!(ids, expected, "from step {from_step}");
    }
}

async fn an_answer_that_its_run_never_read_becomes_input(world: World) {
    let deployment = world.deployment().await;
    let (run_id, first) = world.run(&deployment).await;
    let (deployment_id, thread_id) = (deployment.deployment_id, deployment.default_thread_id);
    let asked: [SteeringId; 2] = [world.ids.next(), world.ids.next()];
    let answers: [MessageId; 2] = [world.ids.next(), world.ids.next()];
    let ended = world.store.transaction("end", move |tx| {
        Box::pin(async move {
            messages::pick_up(tx, &[first], 1).await?;
            for (call_no, (steering_id, message_id)) in (1..).zip(asked.into_iter().zip(answers)) {
                let position = Position { run_id, step_no: 1, call_no };
                let request = SteeringRequest {
                    steering_id,
                    deployment_id,
                    thread_id,
                    run_id,
                    kind: SteeringKind::Question,
                    status: SteeringStatus::Pending,
                    summary: "Which?".to_owned(),
                    tool: "ask_human".to_owned(),
                    tool_call_id: format!("call_{call_no}"),
                    arguments: None,
                    options: Vec::new(),
                    created_at: tx.now(),
                    expires_at: None,
                    outcome: None,
                    by: None,
                    answer: None,
                    resolved_at: None,
                };
                steering::insert(tx, deployment.account_id, &StoredRequest { position, request }, "").await?;
                let message = messages::NewMessage {
                    message_id,
                    thread_id,
                    run_id,
                    role: Role::User,
                    content: format!("answer {call_no}"),
                    attachments: Vec::new(),
                    truncated: false,
                    answers: Some((steering_id, 1)),
                };
                messages::insert(tx, &message).await?;
            }
            // The tool call of the first steering request has a result, so the run has read the first answer but not
            // the second.
            let read = Position { run_id, step_no: 1, call_no: 1 };
            journal::record_intent(tx, read, StepKind::Tool, "ask_human", "{}").await?;
            journal::record_result(tx, read, "{}").await?;
            messages::release_unread_answers(tx, run_id).await
        })
    });
    ended.await.unwrap();
    let heard = world.store.read("heard", move |tx| Box::pin(messages::of_users(tx, thread_id, run_id)));
    let heard = heard.await.unwrap();
    let heard: Vec<_> = heard.iter().map(|message| (message.message_id, message.before_step)).collect();
    assert_eq!(heard, [(first, Some(1)), (answers[1], None)]);
}

async fn pages_lead_back_to_the_first_message(world: World) {
    let deployment = world.deployment().await;
    let (run_id, first) = world.run(&deployment).await;
    let thread_id = deployment.default_thread_id;
    let mut sent: Vec<MessageId> = vec![first];
    for number in 0..6 {
        let message_id = world.ids.next();
        sent.push(message_id);
        world
            .store
            .transaction("add", move |tx| {
                Box::pin(
                    async move { add_message(tx, message_id, thread_id, run_id, &number.to_string()).await },
                )
            })
            .await
            .unwrap();
    }
    let (mut read, mut before) = (Vec::new(), None);
    loop {
        let page = world
            .store
            .read("page", move |tx| Box::pin(messages::page_before(tx, thread_id, before, 3)))
            .await
            .unwrap();
        let more = page.len() > 3;
        read.extend(page.iter().take(3).map(|message| message.message_id));
        before = read.last().copied();
        if !more {
            break;
        }
    }
    sent.reverse();
    assert_eq!(read, sent);
}
