//! How much a command may ask of its judge.

use super::Danger;

/// Bytes of a command that are read: as many as Linux passes in one argument of a program.
pub(super) const MAX_COMMAND_BYTES: usize = 128 * 1024;
/// Scripts, groups and expansions inside of one another. Nobody writes more; each is a few calls on the stack.
pub(super) const MAX_DEPTH: usize = 24;
/// Characters read and made while judging: enough for the longest ordinary command many times over, and a
/// fraction of a second.
pub(super) const MAX_STEPS: usize = 4_000_000;

/// What is left of both.
#[derive(Debug, Default)]
pub(super) struct Budget {
    steps: usize,
    depth: usize,
}

impl Budget {
    /// Pays for work.
    pub(super) fn charge(&mut self, steps: usize) -> Result<(), Danger> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > MAX_STEPS {
            return Err(unreadable("it expands to too much to be judged"));
        }
        Ok(())
    }

    /// Goes one level deeper; [`Budget::leave`] comes back.
    pub(super) fn enter(&mut self) -> Result<(), Danger> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(unreadable("it nests too deeply to be judged"));
        }
        self.charge(1)
    }

    pub(super) fn leave(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    #[cfg(test)]
    pub(super) fn steps(&self) -> usize {
        self.steps
    }
}

pub(super) fn unreadable(what: &str) -> Danger {
    Danger::new("unreadable", what, "")
}
