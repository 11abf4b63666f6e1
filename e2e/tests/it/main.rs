//! End-to-end tests of the real binary over HTTP, with a scripted model and with kills and restarts of the server.
#![cfg(test)]

mod cancelled;
mod command_line;
mod deleted;
mod doctor;
mod egress;
mod failpoint_coverage;
mod fallback_models;
mod files;
#[path = "../history/mod.rs"]
mod history;
mod idempotency;
mod images;
mod kill_matrix;
mod killed;
mod kills;
mod log;
mod model_scripts;
mod mutations;
mod provider_errors;
mod racing;
mod reader;
mod readme;
mod snapshots;
mod steering;
mod stopping;
mod thread_files;
mod tools;
mod updated;
mod whole_run;
mod world;
mod write_requests;
