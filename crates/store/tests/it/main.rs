//! Tests of the store. Most of them run on SQLite and on PostgreSQL.

#![cfg(test)]

mod concurrency;
mod connections;
mod deployments;
mod engine;
mod events;
mod idempotent_requests;
mod journal;
mod keys;
mod messages;
mod placeholders;
mod queue;
mod secrets;
mod snapshots;
mod startup;
