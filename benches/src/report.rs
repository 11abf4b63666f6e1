//! Writes the table of figures into the performance reference.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};

use crate::machine;
use crate::parts::Part;
use crate::plot::Plot;
use crate::stats::{Samples, three_digits};

/// The page that contains the table of figures, relative to this package.
const PAGE: &str = "../docs/reference/performance.md";
/// The directory for the plots, relative to this package.
const PLOTS: &str = "../docs/reference/plots";
/// The marker lines of the page. The table of figures is written between them.
const BEGIN: &str = "<!-- figures: written by `make bench` -->";
const END: &str = "<!-- end of the figures -->";
const HEAD: &str = "| part | what | target | measured: median (min–max) | | n | note | when |\n\
                    |---|---|---|---|---|---|---|---|\n";

/// The target that the median of a figure should meet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    Below(f64),
    Above(f64),
    /// There is no target. The figure is only for comparison.
    None,
}

/// The results of one part of the benchmark.
pub(crate) struct Measured {
    /// The part's rows in the table of figures.
    pub(crate) rows: Vec<Row>,
    /// A separate section of the performance page, if the part writes one.
    pub(crate) section: Option<Section>,
    pub(crate) plots: Vec<PlotFile>,
}

/// A section of the performance page. Its text is written between the two marker comments that contain its name.
pub(crate) struct Section {
    pub(crate) name: &'static str,
    pub(crate) text: String,
}

/// A plot, and the name of its SVG file without the extension.
pub(crate) struct PlotFile {
    pub(crate) name: &'static str,
    pub(crate) plot: Plot,
}

impl From<Vec<Row>> for Measured {
    fn from(rows: Vec<Row>) -> Self {
        Self { rows, section: None, plots: Vec::new() }
    }
}

/// A row of the table of figures.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) part: Part,
    pub(crate) label: String,
    pub(crate) target: Target,
    pub(crate) unit: &'static str,
    /// The measured values, one per repetition.
    pub(crate) values: Samples,
    pub(crate) note: String,
}

impl Row {
    /// Returns true if the median meets the target, and `None` if the row has no target.
    pub(crate) fn is_met(&self) -> Option<bool> {
        match self.target {
            Target::Below(target) => Some(self.values.median() < target),
            Target::Above(target) => Some(self.values.median() > target),
            Target::None => None,
        }
    }

    fn target_text(&self) -> String {
        match self.target {
            Target::Below(target) => format!("< {target} {}", self.unit),
            Target::Above(target) => format!("> {target} {}", self.unit),
            Target::None => "–".to_owned(),
        }
    }

    fn measured_text(&self) -> String {
        format!("{} {}", median_and_range(&self.values), self.unit)
    }

    fn verdict(&self) -> &'static str {
        match self.is_met() {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "",
        }
    }

    /// Formats the row as a line of terminal output.
    pub(crate) fn terminal_line(&self) -> String {
        let (target, measured) = (self.target_text(), self.measured_text());
        let verdict = self.verdict().replace('*', "");
        format!(
            "{:<12} {:<62} {target:<12} {measured:<32} {verdict:<7} {}",
            self.part.name(),
            self.label,
            self.note
        )
    }

    fn markdown(&self, when: &str) -> String {
        format!(
            "| `{}` | {} | {} | {} | {} | {} | {} | {when} |\n",
            self.part.name(),
            self.label,
            self.target_text(),
            self.measured_text(),
            self.verdict(),
            self.values.len(),
            self.note,
        )
    }
}

/// Formats the median of the values. If there are several values, the minimum and the maximum follow in parentheses.
pub(crate) fn median_and_range(values: &Samples) -> String {
    let [median, min, max] = [values.median(), values.min(), values.max()].map(three_digits);
    if values.len() == 1 { median } else { format!("{median} ({min}–{max})") }
}

/// Writes the section of a part, with the date and the commit, into the performance page. Also writes the part's plots.
pub(crate) fn write_extras(measured: &Measured) -> anyhow::Result<()> {
    let package = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    if let Some(section) = &measured.section {
        let path = package.join(PAGE);
        let page = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
        let page = replace_section(&page, section, &machine::date_and_commit()?)?;
        fs::write(&path, page).with_context(|| format!("failed to write {}", path.display()))?;
    }
    for file in &measured.plots {
        let path = package.join(PLOTS).join(format!("{}.svg", file.name));
        fs::create_dir_all(package.join(PLOTS))?;
        fs::write(&path, file.plot.svg()).with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(())
}

fn replace_section(page: &str, section: &Section, when: &str) -> anyhow::Result<String> {
    let begin = format!("<!-- {}: written by `make bench` -->", section.name);
    let end = format!("<!-- end of {} -->", section.name);
    let (before, rest) =
        page.split_once(&begin).with_context(|| format!("the performance page has no line `{begin}`"))?;
    let (_, after) =
        rest.split_once(&end).with_context(|| format!("the performance page has no line `{end}`"))?;
    Ok(format!("{before}{begin}\n\n{}\nMeasured {when}.\n\n{end}{after}", section.text))
}

/// Replaces the rows of the measured parts in the table of figures. The rows of all other parts remain unchanged.
pub(crate) fn write(parts: &[Part], rows: &[Row]) -> anyhow::Result<()> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    let machine = machine::describe()?;
    let command = if parts.len() == Part::ALL.len() {
        "make bench".to_owned()
    } else {
        let names: Vec<_> = parts.iter().map(|part| part.name()).collect();
        format!("cargo run --release -p herm-bench -- {}", names.join(" "))
    };
    let preamble = format!("{machine}\n\nThe last command: `{command}`.\n");
    let page = replace_table(&page, &preamble, rows, &machine::date_and_commit()?)?;
    fs::write(&path, page).with_context(|| format!("failed to write {}", path.display()))
}

fn replace_table(page: &str, preamble: &str, rows: &[Row], when: &str) -> anyhow::Result<String> {
    let (before, rest) =
        page.split_once(BEGIN).with_context(|| format!("the performance page has no line `{BEGIN}`"))?;
    let (old, after) =
        rest.split_once(END).with_context(|| format!("the performance page has no line `{END}`"))?;
    ensure!(
        rows.iter().all(|row| !row.note.contains('|') && !row.label.contains('|')),
        "a label or note contains `|`, which would break the table"
    );
    let mut lines = String::new();
    for part in Part::ALL {
        let new: String = rows.iter().filter(|row| row.part == part).map(|row| row.markdown(when)).collect();
        if new.is_empty() {
            let prefix = format!("| `{}` |", part.name());
            let unchanged = old.lines().filter(|line| line.starts_with(&prefix));
            lines.extend(unchanged.map(|line| format!("{line}\n")));
        } else {
            lines.push_str(&new);
        }
    }
    Ok(format!("{before}{BEGIN}\n\n{preamble}\n{HEAD}{lines}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(part: Part, target: Target, values: &[f64]) -> Row {
        let values = Samples::new(values.to_vec()).unwrap();
        Row { part, label: "a figure".to_owned(), target, unit: "ms", values, note: String::new() }
    }

    #[test]
    fn a_verdict_compares_the_median_with_the_target() {
        let verdicts =
            [Target::Below(2.0), Target::Below(3.0), Target::Above(1.0), Target::Above(2.0), Target::None]
                .map(|target| row(Part::Start, target, &[1.0, 2.0, 9.0]).verdict());
        assert_eq!(verdicts, ["**missed**", "met", "met", "**missed**", ""]);
    }

    #[test]
    fn rows_of_unmeasured_parts_are_unchanged() {
        let page = format!("above\n{BEGIN}\n{END}\nbelow\n");
        let first = [row(Part::Create, Target::None, &[1.0]), row(Part::Start, Target::None, &[2.0])];
        let page = replace_table(&page, "a machine", &first, "monday").unwrap();
        let page =
            replace_table(&page, "a machine", &[row(Part::Start, Target::None, &[3.0])], "tuesday").unwrap();
        let expected = format!(
            "above\n{BEGIN}\n\na machine\n{HEAD}| `start` | a figure | – | 3.00 ms |  | 1 |  | tuesday |\n\
             | `create` | a figure | – | 1.00 ms |  | 1 |  | monday |\n\n{END}\nbelow\n"
        );
        assert_eq!(page, expected);
        assert!(replace_table("no markers", "", &[], "").is_err());
    }

    #[test]
    fn only_the_section_itself_is_replaced() {
        let page = "above\n<!-- peers: written by `make bench` -->\nold\n<!-- end of peers -->\nbelow\n";
        let section = Section { name: "peers", text: "new\n".to_owned() };
        let once = replace_section(page, &section, "monday").unwrap();
        assert_eq!(replace_section(&once, &section, "monday").unwrap(), once);
        assert!(once.starts_with("above\n<!-- peers") && once.ends_with("-->\nbelow\n"), "{once}");
        assert!(once.contains("\n\nnew\n\nMeasured monday.\n\n") && !once.contains("old"), "{once}");
        assert!(replace_section("no markers", &section, "monday").is_err());
    }
}
