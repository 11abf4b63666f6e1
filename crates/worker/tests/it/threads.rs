//! Tests of the retention of thread workspaces: a workspace is retained while a run of its thread is active or waits,
//! and destroyed a day after the thread's last activity.

use std::path::Path;
use std::sync::Arc;

use herm_sandbox::{WorkspaceId, Workspaces};
use herm_store::{DatabaseClock, Error, Location, Options, Store, threads};
use herm_types::time::{ManualClock, SystemRng};
use herm_types::{DeploymentId, IdSource, RunId, ThreadId, Timestamp};
use herm_worker::sweep_threads;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

struct World {
    store: Store,
    clock: Arc<ManualClock>,
    ids: IdSource,
    workspaces: Workspaces,
    deployment_id: DeploymentId,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(Timestamp::from_micros(1_800_000_000_000_000)));
        let ids = IdSource::new(Arc::clone(&clock) as _, Arc::new(SystemRng));
        let store = Store::open(Options {
            location: Location::Sqlite(dir.path().to_owned()),
            clock: Arc::clone(&clock) as _,
            database_clock: DatabaseClock::FromOptions,
            migrate: true,
            exclusive: true,
        })
        .await
        .unwrap();
        let workspaces = Workspaces::new(dir.path().join("workspaces"));
        Self { store, clock, deployment_id: ids.next(), ids, workspaces, _dir: dir }
    }

    fn id(&self, thread_id: ThreadId) -> WorkspaceId {
        WorkspaceId::Thread(self.deployment_id, thread_id)
    }

    fn fill(&self, workspace: WorkspaceId) {
        let dir = self.workspaces.dir_of(workspace);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("file"), "text").unwrap();
    }

    fn exists(&self, thread_id: ThreadId) -> bool {
        self.workspaces.dir_of(self.id(thread_id)).join("file").exists()
    }

    /// Inserts a thread, and creates a file in its workspace.
    async fn thread(&self, active_run: Option<RunId>) -> ThreadId {
        let (thread_id, deployment_id) = (self.ids.next(), self.deployment_id);
        self.store
            .transaction("add", move |tx| {
                Box::pin(async move {
                    threads::insert(tx, thread_id, deployment_id, None).await?;
                    threads::touch(tx, thread_id, active_run, 0).await
                })
            })
            .await
            .unwrap();
        self.fill(self.id(thread_id));
        thread_id
    }

    async fn sweep(&self, in_use: Option<ThreadId>) -> u64 {
        let used = in_use.map(|thread_id| self.id(thread_id));
        let stop = |workspace| async move { Ok::<_, Error>(Some(workspace) != used) };
        sweep_threads(&self.store, &self.workspaces, stop).await.unwrap()
    }

    fn entries(&self) -> usize {
        count(self.workspaces.dir_of(self.id(self.ids.next())).parent().unwrap())
    }
}

fn count(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

#[tokio::test]
async fn a_workspace_is_retained_while_a_run_waits_and_destroyed_a_day_after_its_last_use() {
    let world = World::new().await;
    let (idle, waiting) = (world.thread(None).await, world.thread(Some(world.ids.next())).await);
    let deleted: ThreadId = world.ids.next();
    world.fill(world.id(deleted));
    world.fill(WorkspaceId::Deployment(world.deployment_id));
    assert_eq!(world.sweep(None).await, 1, "only the workspace of the deleted thread is destroyed");
    assert!(!world.exists(deleted) && world.exists(idle));
    world.clock.advance_ms(DAY_MS - 1);
    let fresh = world.thread(None).await;
    assert_eq!(world.sweep(None).await, 0);
    world.clock.advance_ms(1);
    assert_eq!(world.sweep(Some(idle)).await, 0, "its sandbox is still in use");
    assert_eq!(world.sweep(None).await, 1);
    assert!(!world.exists(idle) && world.exists(waiting) && world.exists(fresh));
    assert_eq!(world.entries(), 2, "no renamed workspace is left");
    // While a run waits, its thread's workspace is retained without a time limit.
    world.clock.advance_ms(9 * DAY_MS);
    assert_eq!(world.sweep(None).await, 1);
    assert!(world.exists(waiting));
    assert!(
        world.workspaces.dir_of(WorkspaceId::Deployment(world.deployment_id)).exists(),
        "the deployment's own workspace is retained"
    );
    let all = world.workspaces.list(world.deployment_id).unwrap();
    assert_eq!(all, [world.id(waiting), WorkspaceId::Deployment(world.deployment_id)]);
    world.workspaces.destroy(world.deployment_id).unwrap();
    assert_eq!(count(world.workspaces.dir_of(all[1]).parent().unwrap()), 0);
}

#[tokio::test]
async fn a_renamed_workspace_that_was_not_destroyed_is_destroyed_by_the_next_sweep() {
    let world = World::new().await;
    let thread_id = world.thread(None).await;
    world.workspaces.set_aside(world.deployment_id, thread_id).unwrap();
    world.workspaces.set_aside(world.deployment_id, thread_id).unwrap();
    assert!(!world.exists(thread_id));
    assert_eq!(world.entries(), 1);
    world.sweep(None).await;
    assert_eq!(world.entries(), 0);
}
