//! The parameter type of the functions that execute a step of a run, and their result type.

use herm_store::journal::Position;
use herm_types::run::Run;

use super::load::LoadedRun;
use crate::context::Context;
use crate::lease::HeldLease;

/// The step that a run is executing: a model call, or the tool calls that the model's reply requested.
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

    /// Returns the position in the journal of the step's tool call number `call_no`. The first call is number 1.
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
