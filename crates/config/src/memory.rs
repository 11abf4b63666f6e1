//! The thresholds at which the memory jobs (observer, reflector, dream) and context compaction start.

use std::time::Duration;

use crate::Error;
use crate::setting::{self, Setting};
use crate::source::Sources;

const MAX_TOKENS: u64 = 10_000_000;
const MAX_IDLE_S: u64 = 30 * 24 * 60 * 60;

const OBSERVE_TOKENS: u64 = 30_000;
const OBSERVE_IDLE_S: u64 = 5 * 60;
const REFLECT_TOKENS: u64 = 40_000;
const DREAM_IDLE_S: u64 = 60 * 60;
const COMPACT_TOKENS: u64 = 100_000;

/// The thresholds at which the memory jobs (observer, reflector, dream) and context compaction start.
#[derive(Clone, Debug)]
pub struct Memory {
    /// The observer, which extracts memories from conversations, starts when the unprocessed part of a
    /// conversation reaches this number of tokens.
    pub observe_tokens: u64,
    /// After this time without activity in a thread, the observer processes the rest of the conversation.
    pub observe_idle: Duration,
    /// The reflector merges a deployment's memories when they reach this number of tokens in total.
    pub reflect_tokens: u64,
    /// After this time without activity in a deployment, a dream (a job that tidies the memories) may start.
    pub dream_idle: Duration,
    /// The context of a run is compacted when it reaches this number of tokens.
    pub compact_tokens: u64,
}

impl Memory {
    pub(crate) fn load(sources: &Sources<'_>) -> Result<Self, Error> {
        let number = |setting: &'static Setting, limits, default| {
            let raw = sources.text(setting)?;
            raw.map_or(Ok(default), |raw| raw.number(limits))
        };
        let tokens = |setting, default| number(setting, 1..=MAX_TOKENS, default);
        let idle = |setting, default| number(setting, 0..=MAX_IDLE_S, default).map(Duration::from_secs);
        Ok(Self {
            observe_tokens: tokens(&setting::OBSERVE_TOKENS, OBSERVE_TOKENS)?,
            observe_idle: idle(&setting::OBSERVE_IDLE_S, OBSERVE_IDLE_S)?,
            reflect_tokens: tokens(&setting::REFLECT_TOKENS, REFLECT_TOKENS)?,
            dream_idle: idle(&setting::DREAM_IDLE_S, DREAM_IDLE_S)?,
            compact_tokens: tokens(&setting::COMPACT_TOKENS, COMPACT_TOKENS)?,
        })
    }
}
