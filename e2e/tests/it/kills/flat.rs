//! Whether what was measured over a time has risen: the rule of the soak, and what it lets pass.

/// Measurements below which nothing can be said: thirds of fewer are chance.
pub(super) const MIN_MEASURED: usize = 9;

/// How far the last third may lie above the first one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    pub(super) percent: u64,
    /// In the unit of what is measured.
    pub(super) constant: u64,
}

/// What stands above the middle by chance: caches of the allocator and of the database, pages of the log.
pub(super) const RSS_KIB: Allowance = Allowance { percent: 10, constant: 4 * 1024 };
/// Connections of clients that came back, and of the pools, as the moment has them.
pub(super) const FDS: Allowance = Allowance { percent: 0, constant: 8 };

/// The medians of the first and the last third, which one odd measurement does not move.
pub(super) fn medians(series: &[u64]) -> Option<(u64, u64)> {
    let third = series.len() / 3;
    let median = |part: &[u64]| {
        let mut part = part.to_vec();
        part.sort_unstable();
        part.get(part.len() / 2).copied()
    };
    Some((median(&series[..third])?, median(&series[series.len() - third..])?))
}

/// Refuses a series that has risen by more than is allowed; one that is too short is not judged.
pub(super) fn check(what: &str, series: &[u64], allowed: Allowance) -> Result<(), String> {
    let Some((first, last)) = medians(series).filter(|_| series.len() >= MIN_MEASURED) else { return Ok(()) };
    let limit = first + first * allowed.percent / 100 + allowed.constant;
    if last <= limit {
        return Ok(());
    }
    Err(format!("{what} rose from {first} to {last}, which is over {limit}: {series:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Noise that looks the same in every run.
    fn noise(at: u64, width: u64) -> u64 {
        at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 & (width - 1)
    }

    #[test]
    fn what_only_goes_up_and_down_passes() {
        let saw: Vec<u64> = (0..120).map(|at| 40_000 + at % 10 * 700 + noise(at, 1024)).collect();
        assert_eq!(check("RSS", &saw, RSS_KIB), Ok(()));
        let fds: Vec<u64> = (0..120).map(|at| 60 + noise(at, 16)).collect();
        assert_eq!(check("fds", &fds, FDS), Ok(()));
        let falls: Vec<u64> = (0..120).map(|at| 90_000 - at * 300).collect();
        assert_eq!(check("RSS", &falls, RSS_KIB), Ok(()));
    }

    #[test]
    fn what_leaks_is_refused_though_it_is_noisy() {
        // 200 KiB a second for two minutes.
        let leak: Vec<u64> = (0..120).map(|at| 40_000 + at * 200 + noise(at, 4096)).collect();
        assert!(check("RSS", &leak, RSS_KIB).unwrap_err().starts_with("RSS rose from"));
        let fds: Vec<u64> = (0..120).map(|at| 60 + at / 4 + noise(at, 8)).collect();
        assert!(check("fds", &fds, FDS).is_err());
        // What each life inherits from the one before, in a few of them.
        let lives: Vec<u64> = (0..12).map(|at| 40_000 + at * 1500).collect();
        assert!(check("RSS", &lives, RSS_KIB).is_err());
    }

    #[test]
    fn what_rises_late_and_stays_is_refused_and_one_peak_is_not() {
        let step: Vec<u64> = (0..90).map(|at| if at < 70 { 40_000 } else { 60_000 }).collect();
        assert!(check("RSS", &step, RSS_KIB).is_err());
        let peak: Vec<u64> = (0..90).map(|at| if at == 85 { 900_000 } else { 40_000 }).collect();
        assert_eq!(check("RSS", &peak, RSS_KIB), Ok(()));
    }

    #[test]
    fn too_little_is_not_judged() {
        assert_eq!(check("RSS", &[1, 1_000_000], RSS_KIB), Ok(()));
        assert_eq!(medians(&[]), None);
    }
}
