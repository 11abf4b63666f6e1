//! The HTTP API, from requests to responses, on a real store.

#![cfg(test)]

mod access;
mod contract;
mod deployments;
mod errors;
mod events;
mod file_writes;
mod files;
mod mcp_servers;
mod messages;
mod openapi;
mod runs;
mod skills;
mod threads;
mod tools;
mod updates;
mod world;
