//! The `hermes` harness: what a run does next.
//!
//! Nothing here acts. [`decide`] looks at what the journal says of a run and answers with the next step, so
//! that it can be asked again after a crash and gives the same answer; the worker carries it out.

pub mod danger;
mod decide;
mod prompt;
mod run_state;
mod speech;
pub mod steering;
pub mod tools;

pub use decide::{Decision, MAX_EMPTY_REPLIES, MAX_STEPS, decide, empty_replies};
pub use prompt::{system_prompt, user_text};
pub use run_state::{RunState, Step, turns};
pub use speech::{Said, Speech};
