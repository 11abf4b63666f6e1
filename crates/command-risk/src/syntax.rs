//! The syntax tree of a shell script.

use std::cell::OnceCell;
use std::rc::Rc;

#[derive(Debug, Default)]
pub(super) struct Script {
    pub(super) pipelines: Vec<Pipeline>,
}

/// One command, or several commands connected by `|`.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) stages: Vec<Stage>,
    /// True if the pipeline follows `&&` or `||`.
    pub(super) conditional: bool,
    /// True if the pipeline ends with `&`.
    pub(super) background: bool,
}

#[derive(Debug)]
pub(super) struct Stage {
    pub(super) command: Command,
    pub(super) redirects: Vec<Redirect>,
}

#[derive(Debug)]
pub(super) enum Command {
    /// A simple command: assignments, a program name and arguments, each of them optional.
    Simple(Vec<Word>),
    Group {
        kind: GroupKind,
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
pub(super) enum GroupKind {
    Braces,
    Subshell,
    Branch,
    Loop,
}

#[derive(Debug)]
pub(super) struct Redirect {
    /// The number of the file descriptor before the operator, as in `2>file`.
    pub(super) fd: Option<String>,
    pub(super) kind: RedirectKind,
    /// The path of the file, or the text of a here-string.
    pub(super) target: Word,
}

#[derive(Clone, Debug)]
pub(super) enum RedirectKind {
    In,
    Out,
    Append,
    InOut,
    /// Duplicates a file descriptor, as in `>&2`, `2>&1` or `<&3`.
    Duplicate,
    HereString,
    /// A here-document. The parser sets its text later, when it reaches the line after the operator.
    HereDocument(Rc<OnceCell<Word>>),
}

#[derive(Debug, Default)]
pub(super) struct Word {
    pub(super) parts: Vec<Part>,
}

#[derive(Debug)]
pub(super) enum Part {
    Literal {
        text: String,
        quoted: bool,
    },
    Parameter {
        parameter: Parameter,
        quoted: bool,
    },
    /// A command substitution: `$(…)` or backticks.
    CommandSubstitution {
        script: Script,
        quoted: bool,
    },
    /// A process substitution: `<(…)` or `>(…)`.
    ProcessSubstitution(Script),
    /// A word that is expanded only because its expansion may run commands, for example an array index or the
    /// inside of `$((…))`.
    Discarded(Word),
}

#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) index: Option<String>,
    pub(super) operation: Operation,
}

#[derive(Debug)]
pub(super) enum Operation {
    Plain,
    /// `${x:-word}`: the result is `word` if `x` is unset or empty.
    Default(Word),
    /// `${x:=word}`: if `x` is unset or empty, the result is `word`, which is also assigned to `x`.
    Assign(Word),
    /// `${x:+word}`: the result is `word` if `x` is set and not empty. Otherwise it is empty.
    Alternative(Word),
    /// `${x:?word}`: the shell fails with the message `word` if `x` is unset or empty.
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
    /// An operation of a parameter expansion that the analyzer does not evaluate.
    Other(Word),
}

impl Word {
    pub(super) fn push_char(&mut self, c: char, is_quoted: bool) {
        if let Some(Part::Literal { text, quoted }) = self.parts.last_mut()
            && *quoted == is_quoted
        {
            text.push(c);
            return;
        }
        self.parts.push(Part::Literal { text: c.to_string(), quoted: is_quoted });
    }

    /// Returns the text of the word, or `None` if a part of the word is quoted or expanded.
    pub(super) fn plain(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [Part::Literal { text, quoted: false }] => Some(text),
            _ => None,
        }
    }

    /// Returns the literal text of the word, quoted or not. Parts that are expanded are omitted.
    pub(super) fn literal(&self) -> String {
        let text = |part: &Part| match part {
            Part::Literal { text, .. } => Some(text.clone()),
            _ => None,
        };
        self.parts.iter().filter_map(text).collect()
    }
}
