//! Egress with real peers on loopback: what is reached, what is put in, what is masked.

mod clients;
mod masking;
mod owner;
mod peer;
mod policy;
mod proxy;
mod tunnels;
mod secrets;
mod websockets;
mod world;
