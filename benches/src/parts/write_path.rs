//! The store alone: how many runs' worth of named transactions its one writer carries, and what the disk does.
//!
//! The transactions do what those of the same names do in a server: they are written out here because the store's
//! writer is to be measured without HTTP, model and scheduling around it.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use herm_store::journal::{self, Position};
use herm_store::messages::NewMessage;
use herm_store::queue::{self, Lease};
use herm_store::{DatabaseClock, Location, Options, Store, Tx, deployments, events, messages, runs, threads};
use herm_types::deployment::{Deployment, DeploymentSettings, DeploymentStatus};
use herm_types::event::Event;
use herm_types::run::StepKind;
use herm_types::run::{RunStatus, Usage};
use herm_types::sandbox::{SandboxSettings, SandboxType};
use herm_types::thread::Role;
use herm_types::time::{SystemClock, SystemRng};
use herm_types::{Clock as _, DeploymentId, IdSource, MessageId, RunId, ThreadId};

use super::{Part, Scale};
use crate::bed::fresh_dir;
use crate::report::{Bar, Row};

const WRITERS: usize = 20;
const LEASE_MS: i64 = 30_000;
const MODEL: &str = "anthropic/scripted";
const SAID: &str = "ok";
/// The model's reply as the journal holds it.
const REPLY: &str =
    r#"{"blocks":[{"type":"text","text":"ok"}],"stop":"end_turn","usage":{"input":10,"output":5}}"#;
/// What SQLite writes at least for a commit.
const PAGE_BYTES: usize = 4096;

type Result<T> = std::result::Result<T, herm_store::Error>;

pub(super) async fn measure(scale: Scale) -> anyhow::Result<Vec<Row>> {
    let (mut rates, mut syncs) = (Vec::new(), Vec::new());
    for _ in 0..scale.of(5, 1) {
        syncs.push(syncs_per_second(Duration::from_millis(scale.of(1_000, 20) as u64))?);
        rates.push(runs_per_second(scale.of(100, 2)).await?);
    }
    let note = "20 writers, 5 transactions a run: send, claim, begin, say, finish";
    let sync_note = "4 KiB appended, then `fdatasync`: for scale";
    Ok(vec![
        Part::WritePath.row(
            "runs' worth of transactions, the store alone",
            Bar::Above(400.0),
            "/s",
            rates,
            note,
        )?,
        Part::WritePath.row("the disk's own pace", Bar::None, "/s", syncs, sync_note)?,
    ])
}

fn syncs_per_second(span: Duration) -> anyhow::Result<f64> {
    let dir = fresh_dir()?;
    let mut file = std::fs::File::create(dir.path().join("synced"))?;
    let begun = Instant::now();
    let mut syncs = 0;
    while begun.elapsed() < span {
        file.write_all(&[0; PAGE_BYTES])?;
        file.sync_data()?;
        syncs += 1;
    }
    Ok(f64::from(syncs) / begun.elapsed().as_secs_f64())
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
    let mut writers = Vec::new();
    for _ in 0..WRITERS {
        let writer = Writer {
            store: store.clone(),
            ids: ids.clone(),
            deployment_id: ids.next(),
            thread_id: ids.next(),
        };
        writer.create().await?;
        writers.push(writer);
    }
    let begun = Instant::now();
    let tasks: Vec<_> = writers
        .into_iter()
        .map(|writer| {
            tokio::spawn(async move {
                for _ in 0..runs_each {
                    writer.one_run().await?;
                }
                Ok::<_, herm_store::Error>(())
            })
        })
        .collect();
    for task in tasks {
        task.await.context("a writer panicked")??;
    }
    Ok((WRITERS * runs_each) as f64 / begun.elapsed().as_secs_f64())
}

/// One of the clients whose transactions meet at the store's writer.
#[derive(Clone)]
struct Writer {
    store: Store,
    ids: IdSource,
    deployment_id: DeploymentId,
    thread_id: ThreadId,
}

/// A claimed run.
#[derive(Clone)]
struct Claimed {
    lease: Lease,
    run_id: RunId,
    thread_id: ThreadId,
    /// Of the agent's answer.
    message_id: MessageId,
}

impl Writer {
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

    async fn one_run(&self) -> Result<()> {
        let sent = self.send().await?;
        // Perhaps another writer's run: who claims first has it, as in a server.
        let claimed = self.claim().await?;
        self.begin(claimed.clone(), sent).await?;
        self.say(claimed.clone()).await?;
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
                    let run_id: RunId = this.ids.next();
                    runs::insert(tx, run_id, deployment_id, thread_id).await?;
                    let work_id = this.ids.next();
                    queue::enqueue(tx, work_id, queue::Kind::Run, run_id.to_string(), deployment_id).await?;
                    emit_status(tx, deployment_id, run_id, thread_id, RunStatus::Queued);
                    threads::touch(tx, thread_id, Some(run_id), 1).await?;
                    add_message(tx, deployment_id, message(message_id, thread_id, run_id, Role::User))
                        .await?;
                    Ok(message_id)
                })
            })
            .await
    }

    async fn claim(&self) -> Result<Claimed> {
        let message_id = self.ids.next();
        self.store
            .transaction("claim_work", move |tx| {
                Box::pin(async move {
                    let lease = queue::claim(tx, "bench", 1, LEASE_MS).await?.pop();
                    let lease = lease.ok_or_else(|| corrupt("there is no work"))?;
                    let run_id = lease.subject_id.parse().map_err(|_| corrupt("work has no run"))?;
                    let thread_id = runs::start(tx, run_id).await?;
                    let thread_id = thread_id.ok_or_else(|| corrupt("a run has begun twice"))?;
                    emit_status(tx, lease.deployment_id, run_id, thread_id, RunStatus::Running);
                    Ok(Claimed { lease, run_id, thread_id, message_id })
                })
            })
            .await
    }

    async fn begin(&self, claimed: Claimed, sent: MessageId) -> Result<()> {
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

    async fn say(&self, claimed: Claimed) -> Result<()> {
        self.store
            .transaction("say", move |tx| {
                Box::pin(async move {
                    queue::hold(tx, &claimed.lease).await?;
                    let Claimed { run_id, thread_id, message_id, .. } = claimed;
                    let event = Event::Token { run_id, thread_id, message_id, delta: SAID.to_owned() };
                    tx.emit(claimed.lease.deployment_id, event);
                    Ok(())
                })
            })
            .await
    }

    async fn finish(&self, claimed: Claimed) -> Result<()> {
        self.store
            .transaction("finish_model_call", move |tx| {
                Box::pin(async move {
                    let Claimed { lease, run_id, thread_id, message_id } = &claimed;
                    queue::hold(tx, lease).await?;
                    journal::record_result(tx, claimed.position(), REPLY).await?;
                    let answer = message(*message_id, *thread_id, *run_id, Role::Agent);
                    add_message(tx, lease.deployment_id, answer).await?;
                    threads::find_and_lock(tx, lease.deployment_id, *thread_id).await?;
                    messages::count_pending(tx, *run_id).await?;
                    runs::is_cancel_requested(tx, *run_id).await?;
                    runs::end(tx, *run_id, RunStatus::Completed, None, &Usage::default()).await?;
                    threads::touch(tx, *thread_id, None, 1).await?;
                    queue::complete(tx, lease).await?;
                    emit_status(tx, lease.deployment_id, *run_id, *thread_id, RunStatus::Completed);
                    Ok(())
                })
            })
            .await
    }
}

impl Claimed {
    fn position(&self) -> Position {
        Position { run_id: self.run_id, step_no: 1, call_no: 0 }
    }
}

async fn head(tx: &mut Tx, claimed: &Claimed) -> Result<i64> {
    Ok(events::head(tx, claimed.lease.deployment_id).await?.0)
}

fn emit_status(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    run_id: RunId,
    thread_id: ThreadId,
    status: RunStatus,
) {
    tx.emit(deployment_id, Event::RunStatus { run_id, thread_id, status, error: None, usage: None });
}

fn message(message_id: MessageId, thread_id: ThreadId, run_id: RunId, role: Role) -> NewMessage {
    let (content, attachments) = (SAID.to_owned(), Vec::new());
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

fn corrupt(what: &str) -> herm_store::Error {
    herm_store::Error::Corrupt(what.to_owned())
}
