//! What the host's writers may still add to a workspace.
//!
//! A workspace is measured when that is needed to say no, and otherwise now and then: what the host itself has written
//! since is known. What an agent's commands write is seen with the next measurement; to hold them up is the sandbox's
//! business.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use herm_types::{Clock, Timestamp};

use super::{Error, usage};

/// How long a measurement counts, in milliseconds.
const MEASURED_MS: i64 = 10_000;
/// Workspaces whose measurements are kept; beyond it those that nobody writes to are forgotten.
const MAX_KNOWN: usize = 1024;

/// What is known of a workspace.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// When it was measured, and the bytes that it had, with what was put there since.
    measured: Option<(Timestamp, u64)>,
    /// Bytes on their way, which have no name and are in no measurement.
    on_the_way: u64,
    /// Who is writing.
    writers: usize,
}

/// The quotas of all workspaces that the host writes to; cheap to clone.
#[derive(Clone)]
pub struct Quotas {
    clock: Arc<dyn Clock>,
    known: Arc<Mutex<HashMap<PathBuf, Known>>>,
}

impl std::fmt::Debug for Quotas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quotas").field("known", &self.known().len()).finish_non_exhaustive()
    }
}

/// The room that one writer takes. Dropped, it is given back.
#[derive(Debug)]
pub struct Room {
    quotas: Quotas,
    dir: PathBuf,
    limit: u64,
    /// What the file that is written takes the place of.
    replaced: u64,
    taken: u64,
}

impl Quotas {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, known: Arc::default() }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<PathBuf, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to write to the workspace in `dir`, which may hold `limit` bytes; `replaced` bytes go by it.
    pub fn enter(&self, dir: &Path, limit: u64, replaced: u64) -> Room {
        let mut known = self.known();
        if known.len() >= MAX_KNOWN {
            known.retain(|_, one| one.writers > 0);
        }
        known.entry(dir.to_owned()).or_default().writers += 1;
        Room { quotas: self.clone(), dir: dir.to_owned(), limit, replaced, taken: 0 }
    }

    /// Forgets what was measured: something was removed.
    pub fn forget(&self, dir: &Path) {
        if let Some(one) = self.known().get_mut(dir) {
            one.measured = None;
        }
    }
}

impl Room {
    /// Takes room for a file of so many bytes, what was taken before included. May measure the workspace, which blocks.
    ///
    /// # Errors
    /// [`Error::OverQuota`], and no more is taken.
    pub fn take(&mut self, size: u64) -> Result<(), Error> {
        let more = size.saturating_sub(self.taken);
        let now = self.quotas.clock.now();
        // By an old measurement nobody is refused.
        if more == 0 || self.fits(more, now.plus_ms(-MEASURED_MS)).is_some_and(|fits| fits.is_ok()) {
            return Ok(());
        }
        let used = usage(&self.dir)?;
        self.change(|known| known.measured = Some((now, used)));
        self.fits(more, now).unwrap_or(Ok(()))
    }

    /// Takes the bytes if they fit by a measurement that is not from before `since`; `None` if there is none.
    fn fits(&mut self, bytes: u64, since: Timestamp) -> Option<Result<(), Error>> {
        let (limit, replaced) = (self.limit, self.replaced);
        let fits = self.change(|known| {
            let (_, used) = known.measured.filter(|(at, _)| *at >= since)?;
            let used = used.saturating_add(known.on_the_way);
            if used.saturating_add(bytes) > limit.saturating_add(replaced) {
                return Some(Err(Error::OverQuota { limit, used }));
            }
            known.on_the_way += bytes;
            Some(Ok(()))
        });
        if matches!(fits, Some(Ok(()))) {
            self.taken += bytes;
        }
        fits
    }

    /// The file is in its place: it counts with the rest from now on.
    pub fn fill(mut self) {
        let (taken, replaced) = (std::mem::take(&mut self.taken), self.replaced);
        self.change(|known| {
            known.on_the_way = known.on_the_way.saturating_sub(taken);
            if let Some((_, used)) = &mut known.measured {
                *used = used.saturating_add(taken).saturating_sub(replaced);
            }
        });
    }

    fn change<T: Default>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        // It is there for as long as it has a writer.
        self.quotas.known().get_mut(&self.dir).map(change).unwrap_or_default()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let taken = self.taken;
        self.change(|known| {
            known.on_the_way = known.on_the_way.saturating_sub(taken);
            known.writers = known.writers.saturating_sub(1);
        });
    }
}
