//! The table of figures, and its place in the performance reference.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};

use crate::machine;
use crate::parts::Part;
use crate::plot::Plot;
use crate::stats::{Samples, three_digits};

/// The page that holds the table, from this package's directory.
const PAGE: &str = "../docs/reference/performance.md";
/// Where the plots lie, from there.
const PLOTS: &str = "../docs/reference/plots";
/// Between these two lines of the page stands what is written here.
const BEGIN: &str = "<!-- figures: written by `make bench` -->";
const END: &str = "<!-- end of the figures -->";
const HEAD: &str = "| part | what | bar | measured: median (min–max) | | n | note | when |\n\
                    |---|---|---|---|---|---|---|---|\n";

/// What a figure has to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bar {
    Below(f64),
    Above(f64),
    /// It stands there for scale.
    None,
}

/// What a part gives.
pub(crate) struct Measured {
    /// For the table of figures.
    pub(crate) rows: Vec<Row>,
    /// For a place of its own on the page.
    pub(crate) section: Option<Section>,
    pub(crate) plots: Vec<PlotFile>,
}

/// Text that stands between the part's own two marks on the page.
pub(crate) struct Section {
    pub(crate) name: &'static str,
    pub(crate) text: String,
}

/// A plot, and the name of its file without the ending.
pub(crate) struct PlotFile {
    pub(crate) name: &'static str,
    pub(crate) plot: Plot,
}

impl From<Vec<Row>> for Measured {
    fn from(rows: Vec<Row>) -> Self {
        Self { rows, section: None, plots: Vec::new() }
    }
}

/// One figure.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) part: Part,
    pub(crate) what: String,
    pub(crate) bar: Bar,
    pub(crate) unit: &'static str,
    /// One value for each repetition.
    pub(crate) values: Samples,
    pub(crate) note: String,
}

impl Row {
    /// Whether the median passes; `None` where nothing is asked.
    pub(crate) fn is_met(&self) -> Option<bool> {
        match self.bar {
            Bar::Below(bar) => Some(self.values.median() < bar),
            Bar::Above(bar) => Some(self.values.median() > bar),
            Bar::None => None,
        }
    }

    fn bar_text(&self) -> String {
        match self.bar {
            Bar::Below(bar) => format!("< {bar} {}", self.unit),
            Bar::Above(bar) => format!("> {bar} {}", self.unit),
            Bar::None => "–".to_owned(),
        }
    }

    fn measured_text(&self) -> String {
        format!("{} {}", spread(&self.values), self.unit)
    }

    fn verdict(&self) -> &'static str {
        match self.is_met() {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "",
        }
    }

    /// For the terminal.
    pub(crate) fn line(&self) -> String {
        let (bar, measured) = (self.bar_text(), self.measured_text());
        let verdict = self.verdict().replace('*', "");
        format!(
            "{:<12} {:<62} {bar:<12} {measured:<32} {verdict:<7} {}",
            self.part.name(),
            self.what,
            self.note
        )
    }

    fn markdown(&self, when: &str) -> String {
        format!(
            "| `{}` | {} | {} | {} | {} | {} | {} | {when} |\n",
            self.part.name(),
            self.what,
            self.bar_text(),
            self.measured_text(),
            self.verdict(),
            self.values.len(),
            self.note,
        )
    }
}

/// The median, and between what the values lie if there are several.
pub(crate) fn spread(values: &Samples) -> String {
    let [median, min, max] = [values.median(), values.min(), values.max()].map(three_digits);
    if values.len() == 1 { median } else { format!("{median} ({min}–{max})") }
}

/// Puts what a part says into its place on the page, with the day and the commit, and writes its plots.
pub(crate) fn write_extras(measured: &Measured) -> anyhow::Result<()> {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    if let Some(section) = &measured.section {
        let path = here.join(PAGE);
        let page = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
        let page = replace_section(&page, section, &machine::when()?)?;
        fs::write(&path, page).with_context(|| format!("failed to write {}", path.display()))?;
    }
    for file in &measured.plots {
        let path = here.join(PLOTS).join(format!("{}.svg", file.name));
        fs::create_dir_all(here.join(PLOTS))?;
        fs::write(&path, file.plot.svg()).with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(())
}

fn replace_section(page: &str, section: &Section, when: &str) -> anyhow::Result<String> {
    let begin = format!("<!-- {}: written by `make bench` -->", section.name);
    let end = format!("<!-- end of {} -->", section.name);
    let (before, rest) = page.split_once(&begin).with_context(|| format!("the page has no line {begin}"))?;
    let (_, after) = rest.split_once(&end).with_context(|| format!("the page has no line {end}"))?;
    Ok(format!("{before}{begin}\n\n{}\nMeasured {when}.\n\n{end}{after}", section.text))
}

/// Puts the rows into the page; those of parts that were not measured stay as they are.
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
    let about = format!("{machine}\n\nThe last command: `{command}`.\n");
    let page = replace(&page, &about, rows, &machine::when()?)?;
    fs::write(&path, page).with_context(|| format!("failed to write {}", path.display()))
}

fn replace(page: &str, about: &str, rows: &[Row], when: &str) -> anyhow::Result<String> {
    let (before, rest) = page.split_once(BEGIN).with_context(|| format!("the page has no line {BEGIN}"))?;
    let (old, after) = rest.split_once(END).with_context(|| format!("the page has no line {END}"))?;
    ensure!(rows.iter().all(|row| !row.note.contains('|') && !row.what.contains('|')), "a cell holds a |");
    let mut lines = String::new();
    for part in Part::ALL {
        let new: String = rows.iter().filter(|row| row.part == part).map(|row| row.markdown(when)).collect();
        if new.is_empty() {
            let prefix = format!("| `{}` |", part.name());
            let kept = old.lines().filter(|line| line.starts_with(&prefix));
            lines.extend(kept.map(|line| format!("{line}\n")));
        } else {
            lines.push_str(&new);
        }
    }
    Ok(format!("{before}{BEGIN}\n\n{about}\n{HEAD}{lines}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(part: Part, bar: Bar, values: &[f64]) -> Row {
        let values = Samples::new(values.to_vec()).unwrap();
        Row { part, what: "it".to_owned(), bar, unit: "ms", values, note: String::new() }
    }

    #[test]
    fn a_bar_that_is_missed_is_said_to_be() {
        let texts = [Bar::Below(2.0), Bar::Below(3.0), Bar::Above(1.0), Bar::Above(2.0), Bar::None]
            .map(|bar| row(Part::Start, bar, &[1.0, 2.0, 9.0]).verdict());
        assert_eq!(texts, ["**missed**", "met", "met", "**missed**", ""]);
    }

    #[test]
    fn rows_of_other_parts_stay() {
        let page = format!("above\n{BEGIN}\n{END}\nbelow\n");
        let first = [row(Part::Create, Bar::None, &[1.0]), row(Part::Start, Bar::None, &[2.0])];
        let page = replace(&page, "a machine", &first, "monday").unwrap();
        let page = replace(&page, "a machine", &[row(Part::Start, Bar::None, &[3.0])], "tuesday").unwrap();
        let expected = format!(
            "above\n{BEGIN}\n\na machine\n{HEAD}| `start` | it | – | 3.00 ms |  | 1 |  | tuesday |\n\
             | `create` | it | – | 1.00 ms |  | 1 |  | monday |\n\n{END}\nbelow\n"
        );
        assert_eq!(page, expected);
        assert!(replace("no marks", "", &[], "").is_err());
    }

    #[test]
    fn a_section_replaces_itself_and_nothing_else() {
        let page = "above\n<!-- peers: written by `make bench` -->\nold\n<!-- end of peers -->\nbelow\n";
        let section = Section { name: "peers", text: "new\n".to_owned() };
        let once = replace_section(page, &section, "monday").unwrap();
        assert_eq!(replace_section(&once, &section, "monday").unwrap(), once);
        assert!(once.starts_with("above\n<!-- peers") && once.ends_with("-->\nbelow\n"), "{once}");
        assert!(once.contains("\n\nnew\n\nMeasured monday.\n\n") && !once.contains("old"), "{once}");
        assert!(replace_section("no marks", &section, "monday").is_err());
    }
}
