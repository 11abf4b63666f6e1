//! Statistics of measured values.

use anyhow::ensure;

/// Measured values of one quantity, in ascending order. There is at least one.
#[derive(Clone, Debug)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// Sorts the values.
    ///
    /// # Errors
    /// Fails if there are no values, or if a value is not a finite number.
    pub(crate) fn new(mut values: Vec<f64>) -> anyhow::Result<Self> {
        ensure!(!values.is_empty(), "there are no measurements");
        ensure!(
            values.iter().all(|value| value.is_finite()),
            "a measurement is not a finite number: {values:?}"
        );
        values.sort_by(f64::total_cmp);
        Ok(Self(values))
    }

    /// Returns the percentile by the nearest-rank method: the smallest value for which at least `percent` percent of
    /// all values are less than or equal to it.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let rank = (self.0.len() * percent).div_ceil(100).clamp(1, self.0.len());
        self.0.get(rank - 1).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn median(&self) -> f64 {
        self.percentile(50)
    }

    pub(crate) fn min(&self) -> f64 {
        self.percentile(0)
    }

    pub(crate) fn max(&self) -> f64 {
        self.percentile(100)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Returns the slope of the straight line that fits the points best (least squares), or 0 if all x coordinates are
/// equal.
pub(crate) fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let covariance: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let variance: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    if variance > 0.0 { covariance / variance } else { 0.0 }
}

/// Formats a number with three significant digits.
pub(crate) fn three_digits(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[f64]) -> Samples {
        Samples::new(values.to_vec()).unwrap()
    }

    #[test]
    fn percentiles_use_the_nearest_rank() {
        let hundred = samples(&(1..=100).rev().map(f64::from).collect::<Vec<_>>());
        assert_eq!(
            (hundred.percentile(50), hundred.percentile(99), hundred.percentile(100)),
            (50.0, 99.0, 100.0)
        );
        let five = samples(&[5.0, 1.0, 4.0, 2.0, 3.0]);
        assert_eq!((five.min(), five.median(), five.percentile(99), five.max()), (1.0, 3.0, 5.0, 5.0));
        let one = samples(&[7.0]);
        assert_eq!((one.min(), one.median(), one.max()), (7.0, 7.0, 7.0));
    }

    #[test]
    fn missing_or_invalid_measurements_are_an_error() {
        assert!(Samples::new(Vec::new()).is_err());
        assert!(Samples::new(vec![1.0, f64::NAN]).is_err());
    }

    #[test]
    fn the_slope_is_fitted_to_scattered_points() {
        assert!((slope(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]) - 2.0).abs() < 1e-12);
        assert!((slope(&[(0.0, 0.1), (1.0, -0.1), (2.0, 0.1), (3.0, -0.1)]) + 0.04).abs() < 1e-12);
        assert!(slope(&[(1.0, 5.0), (1.0, 9.0)]).abs() < 1e-12);
    }

    #[test]
    fn numbers_are_formatted_with_three_digits() {
        let formatted = [0.0, 1.234, 9.999, 12.34, 99.99, 1234.5, -0.5].map(three_digits);
        assert_eq!(formatted, ["0.00", "1.23", "10.0", "12.3", "100", "1234", "-0.50"]);
    }
}
