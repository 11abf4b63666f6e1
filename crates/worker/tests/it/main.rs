//! What the worker does by itself.

#![cfg(test)]

mod retention;
mod snapshots;
mod threads;
