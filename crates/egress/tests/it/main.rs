//! Egress with real peers on loopback: what is reached, what is put in, what is masked.

#![cfg(test)]

mod clients;
mod masking;
mod owner;
mod peer;
mod policy;
mod proxy;
mod secrets;
mod tunnels;
mod websockets;
mod world;
