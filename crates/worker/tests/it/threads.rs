//! Workspaces of threads: kept while somebody works with them or waits, and gone a day later.

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
            database_clock: DatabaseClock::Given,
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

    fn is_there(&self, thread_id: ThreadId) -> bool {
        self.workspaces.dir_of(self.id(thread_id)).join("file").exists()
    }

    /// A thread with files, and perhaps a run that has not ended.
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

    async fn sweep(&self, is_used: Option<ThreadId>) -> u64 {
        let used = is_used.map(|thread_id| self.id(thread_id));
        let stop = |workspace| async move { Ok::<_, Error>(Some(workspace) != used) };
        sweep_threads(&self.store, &self.workspaces, stop).await.unwrap()
    }

    fn left(&self) -> usize {
        count(self.workspaces.dir_of(self.id(self.ids.next())).parent().unwrap())
    }
}

fn count(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

#[tokio::test]
async fn a_workspace_stays_while_a_run_waits_and_goes_a_day_after_its_last_use() {
    let world = World::new().await;
    let (idle, waiting) = (world.thread(None).await, world.thread(Some(world.ids.next())).await);
    let gone: ThreadId = world.ids.next();
    world.fill(world.id(gone));
    world.fill(WorkspaceId::Deployment(world.deployment_id));
    assert_eq!(world.sweep(None).await, 1, "only that of a thread that is no more");
    assert!(!world.is_there(gone) && world.is_there(idle));
    world.clock.advance_ms(DAY_MS - 1);
    let fresh = world.thread(None).await;
    assert_eq!(world.sweep(None).await, 0);
    world.clock.advance_ms(1);
    assert_eq!(world.sweep(Some(idle)).await, 0, "somebody is still in its sandbox");
    assert_eq!(world.sweep(None).await, 1);
    assert!(!world.is_there(idle) && world.is_there(waiting) && world.is_there(fresh));
    assert_eq!(world.left(), 2, "nothing that was set aside is left");
    // For days, if it must be.
    world.clock.advance_ms(9 * DAY_MS);
    assert_eq!(world.sweep(None).await, 1);
    assert!(world.is_there(waiting));
    assert!(
        world.workspaces.dir_of(WorkspaceId::Deployment(world.deployment_id)).exists(),
        "its skills stay"
    );
    let all = world.workspaces.of_deployment(world.deployment_id).unwrap();
    assert_eq!(all, [world.id(waiting), WorkspaceId::Deployment(world.deployment_id)]);
    world.workspaces.destroy(world.deployment_id).unwrap();
    assert_eq!(count(world.workspaces.dir_of(all[1]).parent().unwrap()), 0);
}

#[tokio::test]
async fn what_was_set_aside_and_not_destroyed_goes_with_the_next_sweep() {
    let world = World::new().await;
    let thread_id = world.thread(None).await;
    world.workspaces.set_aside(world.deployment_id, thread_id).unwrap();
    world.workspaces.set_aside(world.deployment_id, thread_id).unwrap();
    assert!(!world.is_there(thread_id));
    assert_eq!(world.left(), 1);
    world.sweep(None).await;
    assert_eq!(world.left(), 0);
}
