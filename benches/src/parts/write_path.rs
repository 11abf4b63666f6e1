//! Measures the store alone: how many runs per second its single writer can commit, with five transactions per run. For
//! comparison, also measures how many fsyncs per second the disk can do.
//!
//! Each transaction executes the same statements as the server's transaction of the same name. The transactions are
//! reimplemented here, so that the writer is measured without HTTP, model calls and scheduling.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use herm_store::journal::{self, Position};
use herm_store::messages::NewMessage;
use herm_store::queue::{self, Lease};
use herm_store::runs::{self, NewRun, Transition};
use herm_store::{DatabaseClock, Location, Options, Store, Tx, deployments, events, messages, threads};
use herm_types::deployment::{Deployment, DeploymentSettings, DeploymentStatus};
use herm_types::event::Event;
use herm_types::run::{StepKind, Usage};
use herm_types::sandbox::{SandboxSettings, SandboxType};
use herm_types::thread::Role;
use herm_types::time::{SystemClock, SystemRng};
use herm_types::{Clock as _, DeploymentId, IdSource, MessageId, RunId, ThreadId};

use super::{Mode, Part};
use crate::report::{Row, Target};
use crate::setup::fresh_dir;

/// The number of concurrent clients of the store. All their transactions go through its single writer.
const WRITERS: usize = 20;
const LEASE_MS: i64 = 30_000;
const MODEL: &str = "anthropic/scripted";
const TEXT: &str = "ok";
/// The reply of the model as JSON, in the form in which the journal (the table of a run's steps) stores it.
const REPLY: &str =
    r#"{"blocks":[{"type":"text","text":"ok"}],"stop":"end_turn","usage":{"input":10,"output":5}}"#;
/// The number of bytes written before each fsync when the speed of the disk alone is measured. It is SQLite's page
/// size, and thus the minimum that a commit writes.
const PAGE_BYTES: usize = 4096;

type Result<T> = std::result::Result<T, herm_store::Error>;

pub(super) async fn measure(mode: Mode) -> anyhow::Result<Vec<Row>> {
    let (mut rates, mut syncs) = (Vec::new(), Vec::new());
    for _ in 0..mode.count(5, 1) {
        syncs.push(syncs_per_second(Duration::from_millis(mode.count(1_000, 20) as u64))?);
        rates.push(runs_per_second(mode.count(100, 2)).await?);
    }
    let note = "20 writers, 5 transactions per run: send, claim, begin, publish, finish";
    let sync_note = "4 KiB appended, then `fdatasync`, for comparison";
    Ok(vec![
        Part::WritePath.row(
            "transactions of whole runs, store only",
            Target::Above(400.0),
            "/s",
            rates,
            note,
        )?,
        Part::WritePath.row("the disk without the store", Target::None, "/s", syncs, sync_note)?,
    ])
}

fn syncs_per_second(duration: Duration) -> anyhow::Result<f64> {
    let dir = fresh_dir()?;
    let mut file = std::fs::File::create(dir.path().join("synced"))?;
    let started = Instant::now();
    let mut syncs = 0;
    while started.elapsed() < duration {
        file.write_all(&[0; PAGE_BYTES])?;
        file.sync_data()?;
        syncs += 1;
    }
    Ok(f64::from(syncs) / started.elapsed().as_secs_f64())
}

async fn runs_per_second(runs_each: usize) -> anyhow::Result<f64> {
    let dir = fresh_dir()?;
    let store = Store::open(Options {
        location: Location::Sqlite(dir.path().to_owned()),
        clock: Arc::new(SystemClock),
        database_clock: DatabaseClock::Database,
        migrate: true,
        exclusive: true,
    })
    .await?;
    let ids = IdSource::new(Arc::new(SystemClock), Arc::new(SystemRng));
    let mut clients = Vec::new();
    for _ in 0..WRITERS {
        let client = StoreClient {
            store: store.clone(),
            ids: ids.clone(),
            deployment_id: ids.next(),
            thread_id: ids.next(),
        };
        client.create().await?;
        clients.push(client);
    }
    let started = Instant::now();
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|client| {
            tokio::spawn(async move {
                for _ in 0..runs_each {
                    client.complete_run().await?;
                }
                Ok::<_, herm_store::Error>(())
            })
        })
        .collect();
    for task in tasks {
        task.await.context("a client of the store panicked")??;
    }
    Ok((WRITERS * runs_each) as f64 / started.elapsed().as_secs_f64())
}

/// A client of the store. It completes one run after another.
#[derive(Clone)]
struct StoreClient {
    store: Store,
    ids: IdSource,
    deployment_id: DeploymentId,
    thread_id: ThreadId,
}

/// A run whose work item this client has claimed, and the lease on that work item.
#[derive(Clone)]
struct ClaimedRun {
    lease: Lease,
    run_id: RunId,
    thread_id: ThreadId,
    /// The id of the message that contains the agent's reply.
    message_id: MessageId,
}

impl StoreClient {
    async fn create(&self) -> Result<()> {
        let deployment = self.deployment();
        self.store
            .transaction("create_deployment", move |tx| {
                Box::pin(async move {
                    deployments::insert(tx, &deployment).await?;
                    threads::insert(tx, deployment.default_thread_id, deployment.deployment_id, None).await
                })
            })
            .await
    }

    fn deployment(&self) -> Deployment {
        let sandbox = SandboxSettings::new(SandboxType::Local, Some(SandboxType::Local));
        let now = SystemClock.now();
        Deployment {
            deployment_id: self.deployment_id,
            account_id: self.ids.next(),
            customer_id: "acme".to_owned(),
            name: "Ada".to_owned(),
            model: MODEL.to_owned(),
            system_prompt: "Be brief.".to_owned(),
            status: DeploymentStatus::Ready,
            error: None,
            restore_snapshot: None,
            default_thread_id: self.thread_id,
            version: 1,
            settings: DeploymentSettings::new(sandbox),
            created_at: now,
            updated_at: now,
        }
    }

    async fn complete_run(&self) -> Result<()> {
        let sent = self.send().await?;
        // The claimed run may have been created by another client. In a real server, any worker may claim any run.
        let claimed = self.claim().await?;
        self.begin(claimed.clone(), sent).await?;
        self.publish(claimed.clone()).await?;
        self.finish(claimed).await
    }

    async fn send(&self) -> Result<MessageId> {
        let (this, message_id) = (self.clone(), self.ids.next());
        self.store
            .transaction("send_message", move |tx| {
                Box::pin(async move {
                    let (deployment_id, thread_id) = (this.deployment_id, this.thread_id);
                    deployments::find(tx, deployment_id).await?;
                    threads::find_and_lock(tx, deployment_id, thread_id).await?;
                    let (run_id, work_id) = (this.ids.next(), this.ids.next());
                    runs::begin(tx, NewRun { run_id, work_id, deployment_id, thread_id }).await?;
                    threads::touch(tx, thread_id, Some(run_id), 1).await?;
                    add_message(tx, deployment_id, message(message_id, thread_id, run_id, Role::User))
                        .await?;
                    Ok(message_id)
                })
            })
            .await
    }

    async fn claim(&self) -> Result<ClaimedRun> {
        let claimed = self
            .store
            .transaction("claim_work", move |tx| {
                Box::pin(async move {
                    let lease = queue::claim(tx, "bench", 1, LEASE_MS).await?.pop();
                    let lease = lease.ok_or_else(|| corrupt("the queue is empty"))?;
                    let run_id: RunId = lease.subject()?;
                    if !runs::transition(tx, run_id, Transition::Start).await? {
                        return Err(corrupt("a run was started twice"));
                    }
                    Ok((lease, run_id))
                })
            })
            .await?;
        let (lease, run_id) = claimed;
        let deployment_id = lease.deployment_id;
        let run = self
            .store
            .read("load_run", move |tx| Box::pin(runs::find(tx, deployment_id, run_id)))
            .await?
            .ok_or_else(|| corrupt("a claimed run does not exist"))?;
        Ok(ClaimedRun { lease, run_id, thread_id: run.thread_id, message_id: self.ids.next() })
    }

    async fn begin(&self, claimed: ClaimedRun, sent: MessageId) -> Result<()> {
        self.store
            .transaction("begin_model_call", move |tx| {
                Box::pin(async move {
                    queue::hold(tx, &claimed.lease).await?;
                    messages::pick_up(tx, &[sent], 1).await?;
                    let intent = format!("{{\"failures\":0,\"after\":{}}}", head(tx, &claimed).await?);
                    journal::record_intent(tx, claimed.position(), StepKind::Model, MODEL, &intent).await
                })
            })
            .await
    }

    async fn publish(&self, claimed: ClaimedRun) -> Result<()> {
        self.store
            .transaction("say", move |tx| {
                Box::pin(async move {
                    queue::hold(tx, &claimed.lease).await?;
                    let ClaimedRun { run_id, thread_id, message_id, .. } = claimed;
                    let event = Event::Token { run_id, thread_id, message_id, delta: TEXT.to_owned() };
                    tx.emit(claimed.lease.deployment_id, event);
                    Ok(())
                })
            })
            .await
    }

    async fn finish(&self, claimed: ClaimedRun) -> Result<()> {
        self.store
            .transaction("finish_model_call", move |tx| {
                Box::pin(async move {
                    let ClaimedRun { lease, run_id, thread_id, message_id } = &claimed;
                    queue::hold(tx, lease).await?;
                    journal::record_result(tx, claimed.position(), REPLY).await?;
                    let reply = message(*message_id, *thread_id, *run_id, Role::Agent);
                    add_message(tx, lease.deployment_id, reply).await?;
                    threads::find_and_lock(tx, lease.deployment_id, *thread_id).await?;
                    messages::count_pending(tx, *run_id).await?;
                    runs::is_cancel_requested(tx, *run_id).await?;
                    threads::touch(tx, *thread_id, None, 1).await?;
                    queue::complete(tx, lease).await?;
                    if !runs::transition(tx, *run_id, Transition::Complete(Usage::default())).await? {
                        return Err(corrupt("a run was completed twice"));
                    }
                    Ok(())
                })
            })
            .await
    }
}

impl ClaimedRun {
    fn position(&self) -> Position {
        Position { run_id: self.run_id, step_no: 1, call_no: 0 }
    }
}

async fn head(tx: &mut Tx, claimed: &ClaimedRun) -> Result<i64> {
    Ok(events::head(tx, claimed.lease.deployment_id).await?.0)
}

fn message(message_id: MessageId, thread_id: ThreadId, run_id: RunId, role: Role) -> NewMessage {
    let (content, attachments) = (TEXT.to_owned(), Vec::new());
    NewMessage { message_id, thread_id, run_id, role, content, attachments, truncated: false, answers: None }
}

async fn add_message(tx: &mut Tx, deployment_id: DeploymentId, message: NewMessage) -> Result<()> {
    messages::insert(tx, &message).await?;
    let NewMessage { message_id, thread_id, run_id, role, content, attachments, truncated, answers: _ } =
        message;
    let event = Event::Message { run_id, thread_id, message_id, role, content, attachments, truncated };
    tx.emit(deployment_id, event);
    Ok(())
}

fn corrupt(message: &str) -> herm_store::Error {
    herm_store::Error::Corrupt(message.to_owned())
}
