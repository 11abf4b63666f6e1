//! Draws line plots with logarithmic axes as SVG. They are readable in light and dark colour schemes.

use std::fmt::Write as _;

use crate::stats::three_digits;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 400.0;
/// The left, right, top and bottom edges of the plot area, in SVG units.
const AREA: [f64; 4] = [80.0, 560.0, 50.0, 340.0];
/// The vertical distance between two entries of the legend, in SVG units.
const LEGEND_STEP: f64 = 20.0;
/// The style sheet of a plot. The colours depend on the reader's colour scheme, light or dark. The background is drawn
/// too, because the page that shows the plot may use a different scheme.
const STYLE: &str = "<style>\n\
    svg { font: 13px system-ui, sans-serif }\n\
    .page { fill: #ffffff } text { fill: #1f2328 } .grid { stroke: #d1d9e0 }\n\
    .line { fill: none; stroke-width: 2 } .dashed { stroke-dasharray: 5 4 }\n\
    .c0 { stroke: #0969da } .c1 { stroke: #bc4c00 } .c2 { stroke: #1a7f37 } .c3 { stroke: #8250df }\n\
    @media (prefers-color-scheme: dark) {\n\
    .page { fill: #0d1117 } text { fill: #e6edf3 } .grid { stroke: #30363d }\n\
    .c0 { stroke: #58a6ff } .c1 { stroke: #ffa657 } .c2 { stroke: #56d364 } .c3 { stroke: #d2a8ff }\n\
    }\n\
    </style>\n";

/// A line plot with two logarithmic axes.
pub(crate) struct Plot {
    pub(crate) title: &'static str,
    pub(crate) x_label: &'static str,
    pub(crate) y_label: &'static str,
    pub(crate) lines: Vec<Line>,
}

pub(crate) struct Line {
    pub(crate) name: String,
    /// The index of the line's colour in the style sheet. There are four colours, and index 4 selects the first again.
    pub(crate) colour: usize,
    pub(crate) is_dashed: bool,
    /// The x and y coordinates of the points. Points with a coordinate of zero or below are omitted, because a
    /// logarithmic axis cannot show them.
    pub(crate) points: Vec<(f64, f64)>,
}

/// A logarithmic axis: the exponents of its first and last power of ten, and their positions in SVG units.
#[derive(Clone, Copy)]
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// Creates an axis between the powers of ten that enclose all values. It spans at least one power of ten.
    fn around(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Self {
        let low = values.clone().fold(f64::INFINITY, f64::min).log10().floor();
        let high = values.fold(f64::NEG_INFINITY, f64::max).log10().ceil();
        if !(low.is_finite() && high.is_finite()) {
            return Self { low: 0.0, high: 1.0, from, to };
        }
        Self { low, high: high.max(low + 1.0), from, to }
    }

    fn position(self, value: f64) -> f64 {
        self.from + (value.log10() - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    fn ticks(self) -> impl Iterator<Item = f64> {
        (self.low as i32..=self.high as i32).map(|power| 10_f64.powi(power))
    }
}

impl Plot {
    pub(crate) fn svg(&self) -> String {
        let [left, right, top, bottom] = AREA;
        let points: Vec<_> = self.lines.iter().flat_map(|line| line.drawable_points()).collect();
        let x = Axis::around(points.iter().map(|point| point.0), left, right);
        let y = Axis::around(points.iter().map(|point| point.1), bottom, top);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n\
             <title>{}</title>\n{STYLE}<rect class=\"page\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\n",
            self.title
        );
        text(&mut out, left, 24.0, "start", self.title);
        for value in x.ticks() {
            let at = x.position(value);
            grid(&mut out, [at, top, at, bottom]);
            text(&mut out, at, bottom + 20.0, "middle", &tick(value));
        }
        for value in y.ticks() {
            let at = y.position(value);
            grid(&mut out, [left, at, right, at]);
            text(&mut out, left - 8.0, at + 4.0, "end", &tick(value));
        }
        text(&mut out, (left + right) / 2.0, bottom + 44.0, "middle", self.x_label);
        text(&mut out, left, top - 10.0, "middle", self.y_label);
        for (number, line) in self.lines.iter().enumerate() {
            line.draw(&mut out, x, y, top + 10.0 + number as f64 * LEGEND_STEP);
        }
        out.push_str("</svg>\n");
        out
    }
}

impl Line {
    fn drawable_points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.points.iter().copied().filter(|(x, y)| *x > 0.0 && *y > 0.0)
    }

    fn draw(&self, out: &mut String, x: Axis, y: Axis, legend_y: f64) {
        let right = AREA[1];
        let class = format!("line c{}{}", self.colour % 4, if self.is_dashed { " dashed" } else { "" });
        let positions: Vec<_> = self
            .drawable_points()
            .map(|point| format!("{:.1},{:.1}", x.position(point.0), y.position(point.1)))
            .collect();
        write_line(out, format_args!("<polyline class=\"{class}\" points=\"{}\"/>", positions.join(" ")));
        let (from, to) = (right + 14.0, right + 40.0);
        write_line(out, format_args!("<path class=\"{class}\" d=\"M{from} {legend_y}H{to}\"/>"));
        text(out, to + 6.0, legend_y + 4.0, "start", &self.name);
    }
}

fn tick(value: f64) -> String {
    if value >= 1.0 { format!("{value:.0}") } else { three_digits(value) }
}

fn grid(out: &mut String, [x1, y1, x2, y2]: [f64; 4]) {
    write_line(out, format_args!("<path class=\"grid\" d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\"/>"));
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    write_line(out, format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"));
}

fn write_line(out: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a `String` cannot fail.
    let _ = writeln!(out, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<(f64, f64)>) -> String {
        let line = Line { name: "a < b".to_owned(), colour: 0, is_dashed: true, points };
        Plot { title: "Latency", x_label: "threads", y_label: "ms", lines: vec![line] }.svg()
    }

    #[test]
    fn powers_of_ten_are_equally_spaced() {
        let svg = plot(vec![(1.0, 1.0), (10.0, 10.0), (100.0, 100.0)]);
        assert!(svg.contains("points=\"80.0,340.0 320.0,195.0 560.0,50.0\""), "{svg}");
        assert!(svg.contains(">100</text>") && svg.contains("a &lt; b"), "{svg}");
    }

    #[test]
    fn lines_without_two_drawable_points_are_drawn() {
        assert!(plot(vec![(10.0, 10.0)]).contains("points=\"80.0,340.0\""));
        assert!(plot(vec![(0.0, 1.0), (1.0, -1.0)]).contains("points=\"\""));
        assert!(!plot(Vec::new()).contains("NaN"));
    }
}
