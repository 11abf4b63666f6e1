//! Where an agent's commands run ([`local`]), and the one way in which the host reaches an agent's files
//! ([`workspace`]).

pub mod local;
pub mod workspace;
