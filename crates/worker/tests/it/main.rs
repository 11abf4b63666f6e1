//! What the worker does by itself.

#![cfg(test)]

mod egress;
mod retention;
mod snapshots;
mod threads;
