//! Tests of the egress proxy with real hosts on loopback: policy, secret injection and masking.

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
