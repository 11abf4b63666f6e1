//! Detects growth in a series of measurements, for example of a server's memory. The soak uses it to find leaks.

/// The minimum length of a series that [`check`] can reject. In a shorter series, single samples influence the medians
/// too much.
pub(super) const MIN_SAMPLES: usize = 9;

/// The amount by which the median of the last third of a series may exceed the median of the first third.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    pub(super) percent: u64,
    /// The constant part of the allowance, in the unit of the samples. The other part is a percentage of the first
    /// third's median.
    pub(super) constant: u64,
}

/// The allowed growth of memory. Some growth is normal: the caches of the allocator and of the database fill slowly,
/// and more and more pages of the database log are mapped.
pub(super) const RSS_KIB: Allowance = Allowance { percent: 10, constant: 4 * 1024 };
/// The allowed growth in the number of open file descriptors. This number varies, because clients and connection pools
/// open and close connections.
pub(super) const FDS: Allowance = Allowance { percent: 0, constant: 8 };

/// Returns the medians of the first and last third of a series, or `None` if it has fewer than three values. Unlike an
/// average, a median is not affected by a single outlier.
pub(super) fn medians(series: &[u64]) -> Option<(u64, u64)> {
    let third = series.len() / 3;
    let median = |part: &[u64]| {
        let mut part = part.to_vec();
        part.sort_unstable();
        part.get(part.len() / 2).copied()
    };
    Some((median(&series[..third])?, median(&series[series.len() - third..])?))
}

/// Fails if the series grew by more than `allowed`. A series with fewer than [`MIN_SAMPLES`] values always passes.
pub(super) fn check(name: &str, series: &[u64], allowed: Allowance) -> Result<(), String> {
    let Some((first, last)) = medians(series).filter(|_| series.len() >= MIN_SAMPLES) else { return Ok(()) };
    let limit = first + first * allowed.percent / 100 + allowed.constant;
    if last <= limit {
        return Ok(());
    }
    Err(format!("{name} rose from {first} to {last}, above the limit of {limit}: {series:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a value from 0 to `width - 1` that looks random but is always the same for the same `at`.
    fn noise(at: u64, width: u64) -> u64 {
        at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 & (width - 1)
    }

    #[test]
    fn a_series_that_only_fluctuates_or_falls_passes() {
        let sawtooth: Vec<u64> = (0..120).map(|at| 40_000 + at % 10 * 700 + noise(at, 1024)).collect();
        assert_eq!(check("RSS", &sawtooth, RSS_KIB), Ok(()));
        let fds: Vec<u64> = (0..120).map(|at| 60 + noise(at, 16)).collect();
        assert_eq!(check("fds", &fds, FDS), Ok(()));
        let falling: Vec<u64> = (0..120).map(|at| 90_000 - at * 300).collect();
        assert_eq!(check("RSS", &falling, RSS_KIB), Ok(()));
    }

    #[test]
    fn a_noisy_leak_is_rejected() {
        // A leak of 200 KiB per second over two minutes.
        let leak: Vec<u64> = (0..120).map(|at| 40_000 + at * 200 + noise(at, 4096)).collect();
        assert!(check("RSS", &leak, RSS_KIB).unwrap_err().starts_with("RSS rose from"));
        let fds: Vec<u64> = (0..120).map(|at| 60 + at / 4 + noise(at, 8)).collect();
        assert!(check("fds", &fds, FDS).is_err());
        // Twelve server processes, each with more memory than the one before.
        let end_samples: Vec<u64> = (0..12).map(|at| 40_000 + at * 1500).collect();
        assert!(check("RSS", &end_samples, RSS_KIB).is_err());
    }

    #[test]
    fn a_late_step_is_rejected_and_a_single_peak_passes() {
        let step: Vec<u64> = (0..90).map(|at| if at < 70 { 40_000 } else { 60_000 }).collect();
        assert!(check("RSS", &step, RSS_KIB).is_err());
        let peak: Vec<u64> = (0..90).map(|at| if at == 85 { 900_000 } else { 40_000 }).collect();
        assert_eq!(check("RSS", &peak, RSS_KIB), Ok(()));
    }

    #[test]
    fn a_short_series_always_passes() {
        assert_eq!(check("RSS", &[1, 1_000_000], RSS_KIB), Ok(()));
        assert_eq!(medians(&[]), None);
    }
}
