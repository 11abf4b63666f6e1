//! The real binary, from the outside: over HTTP, with a scripted model, killed and started again.
#![cfg(test)]

mod cancelled;
mod command_line;
mod deleted;
mod doctor;
mod egress;
mod fallback_models;
mod files;
#[path = "../history/mod.rs"]
mod history;
mod household;
mod idempotency;
mod images;
mod kill_matrix;
mod kill_points;
mod killed;
mod kills;
mod log;
mod main_job;
mod mutations;
mod provider_faults;
mod racing;
mod reader;
mod readme;
mod scripts;
mod snapshots;
mod steering;
mod stopping;
mod thread_files;
mod tools;
mod updated;
mod world;
