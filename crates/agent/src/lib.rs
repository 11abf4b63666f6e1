//! The `hermes` harness, which decides the next step of a run.
//!
//! This crate performs no I/O. [`decide`] receives the state of a run, as the journal records it, and returns
//! the next step, which the worker executes. The same state always results in the same decision, so a worker
//! can decide again after a crash.

mod decide;
mod prompt;
mod reply_dedup;
mod run_state;
pub mod steering;
pub mod tools;

pub use decide::{Decision, MAX_EMPTY_REPLIES, MAX_STEPS, OpenCall, decide, empty_replies, is_final_reply};
pub use prompt::{system_prompt, user_text};
pub use reply_dedup::{Output, ReplyDedup};
pub use run_state::{RunState, Step, turns};
