//! Disk quotas that apply when the server writes to workspaces.
//!
//! The disk usage of a workspace is measured when the last measurement is too old, and always before a write is
//! rejected. Between measurements, the server's own writes are added to the last measured value. Files that the agent's
//! commands write are noticed only at the next measurement. This module does not limit what the commands write.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use herm_types::{Clock, Timestamp};

use super::{Error, usage};

/// The time for which a measurement of disk usage is valid, in milliseconds.
const MEASUREMENT_TTL_MS: i64 = 10_000;
/// The maximum number of tracked workspaces. When it is reached, workspaces without a write in progress are no longer
/// tracked.
const MAX_TRACKED: usize = 1024;

/// The tracked disk usage of one workspace.
#[derive(Clone, Copy, Debug, Default)]
struct WorkspaceUsage {
    /// The time of the last measurement, and a number of bytes: the measured bytes plus the bytes that the server has
    /// written since.
    measured: Option<(Timestamp, u64)>,
    /// The number of bytes reserved for files that are still being written. These files are not included in
    /// measurements.
    reserved: u64,
    /// The number of writes that the server is currently making to this workspace.
    writers: usize,
}

/// Tracks the disk usage of all workspaces to which the server writes; cheap to clone.
#[derive(Clone)]
pub struct Quotas {
    clock: Arc<dyn Clock>,
    workspaces: Arc<Mutex<HashMap<PathBuf, WorkspaceUsage>>>,
}

impl std::fmt::Debug for Quotas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quotas").field("workspaces", &self.workspaces().len()).finish_non_exhaustive()
    }
}

/// The part of a workspace's quota that one write has reserved. It is released when the reservation is dropped.
#[derive(Debug)]
pub struct Reservation {
    quotas: Quotas,
    dir: PathBuf,
    limit: u64,
    /// The number of bytes on disk that become free because the write replaces a file.
    replaced: u64,
    reserved: u64,
}

impl Quotas {
    /// Creates a tracker that does not track any workspaces yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, workspaces: Arc::default() }
    }

    fn workspaces(&self) -> MutexGuard<'_, HashMap<PathBuf, WorkspaceUsage>> {
        self.workspaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a write to the workspace in `dir`, whose quota is `limit` bytes. `replaced` is the number of bytes on
    /// disk that become free because the write replaces a file. Nothing is reserved yet.
    pub fn begin_write(&self, dir: &Path, limit: u64, replaced: u64) -> Reservation {
        let mut workspaces = self.workspaces();
        if workspaces.len() >= MAX_TRACKED {
            workspaces.retain(|_, workspace| workspace.writers > 0);
        }
        workspaces.entry(dir.to_owned()).or_default().writers += 1;
        Reservation { quotas: self.clone(), dir: dir.to_owned(), limit, replaced, reserved: 0 }
    }

    /// Discards the last measurement of a workspace. Must be called after files have been removed from the workspace.
    pub fn invalidate(&self, dir: &Path) {
        if let Some(workspace) = self.workspaces().get_mut(dir) {
            workspace.measured = None;
        }
    }
}

impl Reservation {
    /// Increases the reservation to a total of `size` bytes. Blocks the thread if the workspace must be measured.
    ///
    /// # Errors
    /// Returns [`Error::OverQuota`] if the write would exceed the quota. The reservation is then unchanged.
    pub fn grow_to(&mut self, size: u64) -> Result<(), Error> {
        let more = size.saturating_sub(self.reserved);
        let now = self.quotas.clock.now();
        // First try with the last measurement. If the bytes do not fit, measure again below: a write may be rejected
        // only on the basis of a new measurement.
        if more == 0
            || self.try_reserve(more, now.plus_ms(-MEASUREMENT_TTL_MS)).is_some_and(|result| result.is_ok())
        {
            return Ok(());
        }
        let used = usage(&self.dir)?;
        self.update(|workspace| workspace.measured = Some((now, used)));
        self.try_reserve(more, now).unwrap_or(Ok(()))
    }

    /// Reserves `bytes` more bytes if they fit into the quota. Uses only a measurement made at or after `since`.
    /// Returns `None` if there is no such measurement.
    fn try_reserve(&mut self, bytes: u64, since: Timestamp) -> Option<Result<(), Error>> {
        let (limit, replaced) = (self.limit, self.replaced);
        let result = self.update(|workspace| {
            let (_, used) = workspace.measured.filter(|(at, _)| *at >= since)?;
            let used = used.saturating_add(workspace.reserved);
            if used.saturating_add(bytes) > limit.saturating_add(replaced) {
                return Some(Err(Error::OverQuota { limit, used }));
            }
            workspace.reserved += bytes;
            Some(Ok(()))
        });
        if matches!(result, Some(Ok(()))) {
            self.reserved += bytes;
        }
        result
    }

    /// Completes the write: from now on, the reserved bytes count as written and the replaced bytes as free.
    pub fn commit(mut self) {
        let (reserved, replaced) = (std::mem::take(&mut self.reserved), self.replaced);
        self.update(|workspace| {
            workspace.reserved = workspace.reserved.saturating_sub(reserved);
            if let Some((_, used)) = &mut workspace.measured {
                *used = used.saturating_add(reserved).saturating_sub(replaced);
            }
        });
    }

    fn update<T: Default>(&self, update: impl FnOnce(&mut WorkspaceUsage) -> T) -> T {
        // The workspace is always in the map, because a workspace with a write in progress remains tracked.
        self.quotas.workspaces().get_mut(&self.dir).map(update).unwrap_or_default()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let reserved = self.reserved;
        self.update(|workspace| {
            workspace.reserved = workspace.reserved.saturating_sub(reserved);
            workspace.writers = workspace.writers.saturating_sub(1);
        });
    }
}
