//! Limits on the work that the analysis of one command may take.

use super::Risk;

/// The maximum length of a command, in bytes. Longer commands are reported as `unreadable`. Linux does not
/// accept longer program arguments anyway.
pub(super) const MAX_COMMAND_BYTES: usize = 128 * 1024;
/// The maximum nesting depth of scripts, groups and expansions. Deeper commands are reported as `unreadable`.
/// The analysis is recursive, so this limit also bounds its stack usage. Real commands nest less deeply.
pub(super) const MAX_DEPTH: usize = 24;
/// The maximum number of steps in the analysis of one command. One step is one character that is read or
/// produced. Commands that take more are reported as `unreadable`. Ordinary commands take far fewer, and the
/// analysis reaches the limit within a fraction of a second.
pub(super) const MAX_STEPS: usize = 4_000_000;

/// The steps that the analysis has used so far, and its current nesting depth.
#[derive(Debug, Default)]
pub(super) struct Budget {
    steps: usize,
    depth: usize,
}

impl Budget {
    /// Adds `steps` to the steps that the analysis has used so far.
    ///
    /// # Errors
    /// Returns a risk with the rule `unreadable` if the analysis has taken more than [`MAX_STEPS`] steps.
    pub(super) fn charge(&mut self, steps: usize) -> Result<(), Risk> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > MAX_STEPS {
            return Err(unreadable("it expands to too much text to be analyzed"));
        }
        Ok(())
    }

    /// Enters a nesting level. [`Budget::leave`] leaves it.
    ///
    /// # Errors
    /// Returns a risk with the rule `unreadable` if the depth exceeds [`MAX_DEPTH`].
    pub(super) fn enter(&mut self) -> Result<(), Risk> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(unreadable(&format!(
                "it nests more than {MAX_DEPTH} levels deep and cannot be analyzed"
            )));
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

pub(super) fn unreadable(effect: &str) -> Risk {
    Risk::new("unreadable", effect, "")
}
