//! Tests of the worker's background tasks and its egress service.

#![cfg(test)]

mod egress;
mod retention;
mod snapshots;
mod threads;
