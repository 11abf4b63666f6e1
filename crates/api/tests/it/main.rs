//! Tests of the HTTP API, from the request to the response, with a real database.

#![cfg(test)]

mod access;
mod connections;
mod contract;
mod cors;
mod deployments;
mod errors;
mod event_streams;
mod events;
mod file_writes;
mod files;
mod idempotency;
mod keys;
mod mcp_servers;
mod messages;
mod models;
mod openapi;
mod paging;
mod rate_limits;
mod requests;
mod runs;
mod secrets;
mod skills;
mod snapshots;
mod steering;
mod thread_files;
mod threads;
mod tokens;
mod tools;
mod updates;
mod world;
