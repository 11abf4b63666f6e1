//! One step of a run, as the functions that execute it receive it.

use herm_store::journal::Position;
use herm_types::run::Run;

use super::load::LoadedRun;
use crate::context::Context;
use crate::lease::HeldLease;

/// The step at which a run is: the next model call, or the latest one with its tool calls.
#[derive(Clone, Copy)]
pub(super) struct Step<'a> {
    pub(super) context: &'a Context,
    pub(super) lease: &'a HeldLease,
    pub(super) loaded: &'a LoadedRun,
    pub(super) step_no: i64,
}

impl<'a> Step<'a> {
    pub(super) fn run(&self) -> &'a Run {
        &self.loaded.run
    }

    /// Returns the position of the step's model call in the journal.
    pub(super) fn model_position(&self) -> Position {
        self.position(0)
    }

    /// Returns the position in the journal of the step's tool call with this number, which starts at 1.
    pub(super) fn position(&self, call_no: i64) -> Position {
        Position { run_id: self.run().run_id, step_no: self.step_no, call_no }
    }
}

/// The result of executing a step.
pub(super) enum Progress {
    /// The run continues: its new state is loaded, and the next step decided.
    Continue,
    /// The run has ended, or waits in the queue. This worker has released the run's lease.
    Released,
}
