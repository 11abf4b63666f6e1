//! When memory and dreaming begin their work, and when a context is compacted.

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

/// Thresholds of memory, dreaming and context.
#[derive(Clone, Debug)]
pub struct Memory {
    /// Tokens of conversation not yet observed at which the observer starts.
    pub observe_tokens: u64,
    /// How long a thread is quiet before the observer takes what there is.
    pub observe_idle: Duration,
    /// Tokens of observations at which the reflector merges them.
    pub reflect_tokens: u64,
    /// How long a deployment is quiet before it may dream.
    pub dream_idle: Duration,
    /// Tokens of context at which a run compacts before it goes on.
    pub compact_tokens: u64,
}

impl Memory {
    pub(crate) fn load(sources: &Sources<'_>) -> Result<Self, Error> {
        let number = |setting: &'static Setting, limits, default| {
            let found = sources.text(setting)?;
            found.map_or(Ok(default), |found| found.number(limits))
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
