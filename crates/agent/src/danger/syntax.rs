//! What a shell script is made of.

use std::cell::OnceCell;
use std::rc::Rc;

#[derive(Debug, Default)]
pub(super) struct Script {
    pub(super) items: Vec<Item>,
}

/// Commands that are joined by pipes.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) stages: Vec<Stage>,
    /// It follows `&&` or `||`.
    pub(super) conditional: bool,
    /// It ends with `&`.
    pub(super) background: bool,
}

#[derive(Debug)]
pub(super) struct Stage {
    pub(super) command: Command,
    pub(super) redirects: Vec<Redirect>,
}

#[derive(Debug)]
pub(super) enum Command {
    /// Assignments, a program, its arguments.
    Simple(Vec<Word>),
    Group {
        kind: Kind,
        body: Script,
    },
    For {
        variable: String,
        values: Vec<Word>,
        body: Script,
    },
    Function {
        name: String,
        body: Rc<Script>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Braces,
    Subshell,
    Branch,
    Loop,
}

#[derive(Debug)]
pub(super) struct Redirect {
    /// The number before the operator.
    pub(super) fd: Option<String>,
    pub(super) kind: RedirectKind,
    /// A file, or the text of a here-string.
    pub(super) target: Word,
}

#[derive(Clone, Debug)]
pub(super) enum RedirectKind {
    In,
    Out,
    Append,
    InOut,
    /// `>&2`, `2>&1`, `<&3`.
    Duplicate,
    HereString,
    /// A here-document, whose text comes with the next line.
    Here(Rc<OnceCell<Word>>),
}

#[derive(Debug, Default)]
pub(super) struct Word {
    pub(super) parts: Vec<Part>,
}

#[derive(Debug)]
pub(super) enum Part {
    Text {
        text: String,
        quoted: bool,
    },
    Parameter {
        parameter: Parameter,
        quoted: bool,
    },
    /// `$(…)` and backticks.
    Script {
        script: Script,
        quoted: bool,
    },
    /// `<(…)` and `>(…)`.
    Process(Script),
    /// What is expanded and counts for nothing: an index, a calculation.
    Silent(Word),
}

#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) index: Option<String>,
    pub(super) form: Form,
}

#[derive(Debug)]
pub(super) enum Form {
    Plain,
    /// `${x:-word}`.
    Default(Word),
    /// `${x:=word}`.
    Assign(Word),
    /// `${x:+word}`.
    Alternative(Word),
    /// `${x:?word}`.
    Required(Word),
    StripPrefix {
        pattern: Word,
        longest: bool,
    },
    StripSuffix {
        pattern: Word,
        longest: bool,
    },
    Replace {
        from: Word,
        to: Word,
    },
    Slice(Word),
    Upper,
    Lower,
    Indirect,
    Length,
    /// What no shell of ours computes.
    Other(Word),
}

impl Word {
    pub(super) fn push_char(&mut self, c: char, is_quoted: bool) {
        if let Some(Part::Text { text, quoted }) = self.parts.last_mut()
            && *quoted == is_quoted
        {
            text.push(c);
            return;
        }
        self.parts.push(Part::Text { text: c.to_string(), quoted: is_quoted });
    }

    /// The word's text, if nothing in it is quoted or expanded.
    pub(super) fn plain(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [Part::Text { text, quoted: false }] => Some(text),
            _ => None,
        }
    }

    /// The word's text as it is written, quoted or not, without what is expanded.
    pub(super) fn literal(&self) -> String {
        let text = |part: &Part| match part {
            Part::Text { text, .. } => Some(text.clone()),
            _ => None,
        };
        self.parts.iter().filter_map(text).collect()
    }
}
