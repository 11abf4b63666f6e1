//! The HTTP API, from requests to responses, on a real store.

#![cfg(test)]

mod access;
mod deployments;
mod errors;
mod events;
mod files;
mod messages;
mod openapi;
mod runs;
mod threads;
mod world;
