//! Parses the commands of a shell script. The parser is lenient: it finds every command, even in a script
//! that no shell would accept.

use std::cell::OnceCell;
use std::rc::Rc;

use super::Risk;
use super::budget::Budget;
use super::syntax::{Command, GroupKind, Part, Pipeline, Redirect, RedirectKind, Script, Stage, Word};

/// Reserved words that can precede a command or end a compound command.
const RESERVED_WORDS: &[&str] =
    &["then", "else", "elif", "fi", "do", "done", "esac", "in", "}", "!", "coproc"];

pub(super) struct Parser<'a> {
    pub(super) chars: Vec<char>,
    pub(super) at: usize,
    pub(super) budget: &'a mut Budget,
    /// Here-documents whose operator was parsed and whose text begins on the next line.
    pending: Vec<PendingHereDocument>,
}

struct PendingHereDocument {
    delimiter: String,
    expands: bool,
    strips_tabs: bool,
    body: Rc<OnceCell<Word>>,
}

/// Parses a whole script.
///
/// # Errors
/// Returns a risk with the rule `unreadable` if the script exceeds a limit of the analysis.
pub(super) fn parse(text: &str, budget: &mut Budget) -> Result<Script, Risk> {
    Parser::new(text, budget)?.script(&[])
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &str, budget: &'a mut Budget) -> Result<Self, Risk> {
        budget.charge(text.len())?;
        Ok(Self { chars: text.chars().collect(), at: 0, budget, pending: Vec::new() })
    }

    pub(super) fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    pub(super) fn eat(&mut self, c: char) -> bool {
        let is_next = self.peek(0) == Some(c);
        self.at += usize::from(is_next);
        is_next
    }

    fn eat_text(&mut self, text: &str) -> bool {
        let is_next = text.chars().enumerate().all(|(i, c)| self.peek(i) == Some(c));
        self.at += if is_next { text.chars().count() } else { 0 };
        is_next
    }

    /// Parses commands up to one of the `closers`, which are reserved words or `)`. The closer is not
    /// consumed. If `closers` is empty, parses up to the end of the text.
    pub(super) fn script(&mut self, closers: &[&str]) -> Result<Script, Risk> {
        self.budget.enter()?;
        let mut script = Script::default();
        let mut conditional = false;
        loop {
            conditional |= self.separators()?;
            if self.peek(0).is_none() || (self.peek(0) == Some(')') && closers.contains(&")")) {
                break;
            }
            if let Some(word) = self.reserved() {
                if closers.contains(&word.as_str()) {
                    break;
                }
                if RESERVED_WORDS.contains(&word.as_str()) {
                    self.at += word.len();
                    continue;
                }
            }
            let start = self.at;
            let pipeline = self.pipeline(conditional)?;
            conditional = false;
            script.pipelines.push(pipeline);
            // If there is no command at this position, skips one character to prevent an endless loop.
            self.at += usize::from(self.at == start);
        }
        self.budget.leave();
        Ok(script)
    }

    /// Skips the separators between two commands. Returns true if one of them was `&&` or `||`.
    fn separators(&mut self) -> Result<bool, Risk> {
        let mut conditional = false;
        loop {
            self.blanks();
            match self.peek(0) {
                Some('\n') => self.newline()?,
                Some('#') => self.comment(),
                Some(';') => self.at += 1,
                Some('&') if self.peek(1) == Some('>') => return Ok(conditional),
                Some(c @ ('&' | '|')) => {
                    conditional |= self.peek(1) == Some(c);
                    self.at += 1;
                }
                _ => return Ok(conditional),
            }
        }
    }

    /// Skips spaces, tabs and line continuations.
    pub(super) fn blanks(&mut self) {
        loop {
            match self.peek(0) {
                Some(' ' | '\t') => self.at += 1,
                Some('\\') if self.peek(1) == Some('\n') => self.at += 2,
                _ => return,
            }
        }
    }

    fn comment(&mut self) {
        while self.peek(0).is_some_and(|c| c != '\n') {
            self.at += 1;
        }
    }

    /// Skips a line break and reads the texts of the here-documents that follow it.
    fn newline(&mut self) -> Result<(), Risk> {
        self.at += 1;
        for document in std::mem::take(&mut self.pending) {
            let mut text = String::new();
            while self.peek(0).is_some() {
                let rest = self.chars.get(self.at..).unwrap_or_default();
                let length = rest.iter().position(|c| *c == '\n').unwrap_or(rest.len());
                let line: String = rest.iter().take(length).collect();
                self.at += length + 1;
                let line = if document.strips_tabs { line.trim_start_matches('\t') } else { &line };
                if line == document.delimiter {
                    break;
                }
                text.push_str(line);
                text.push('\n');
            }
            let body = if document.expands {
                self.budget.enter()?;
                let word = Parser::new(&text, self.budget)?.quoted_until(None)?;
                self.budget.leave();
                word
            } else {
                Word { parts: vec![Part::Literal { text, quoted: true }] }
            };
            // `set` fails only if the text is already set, but each here-document is read only once.
            let _ = document.body.set(body);
        }
        Ok(())
    }

    /// Returns the next word, without consuming it, if it could be a reserved word.
    fn reserved(&self) -> Option<String> {
        let rest = self.chars.get(self.at..)?;
        let length = rest.iter().take(9).position(|c| !matches!(c, 'a'..='z' | '{' | '}' | '!'));
        let length = length.unwrap_or(rest.len());
        let ends = rest.get(length).is_none_or(|c| c.is_whitespace() || ";&|()<>".contains(*c));
        (length > 0 && length < 9 && ends).then(|| rest.iter().take(length).collect())
    }

    fn pipeline(&mut self, conditional: bool) -> Result<Pipeline, Risk> {
        let mut stages = Vec::new();
        loop {
            self.blanks();
            while self.peek(0) == Some('!') && self.peek(1).is_some_and(char::is_whitespace) {
                self.at += 1;
                self.blanks();
            }
            stages.push(self.stage()?);
            self.blanks();
            if self.peek(0) != Some('|') || self.peek(1) == Some('|') {
                break;
            }
            self.at += 1;
            self.eat('&');
            self.blanks();
            while matches!(self.peek(0), Some('\n' | '#')) {
                if self.peek(0) == Some('#') {
                    self.comment();
                } else {
                    self.newline()?;
                }
                self.blanks();
            }
        }
        let background = self.peek(0) == Some('&') && self.peek(1) != Some('&');
        Ok(Pipeline { stages, conditional, background })
    }

    fn stage(&mut self) -> Result<Stage, Risk> {
        self.budget.enter()?;
        let mut redirects = Vec::new();
        let command = if self.eat('(') {
            self.group(GroupKind::Subshell, ")")?
        } else {
            match self.reserved().as_deref() {
                Some("{") => self.skip(1).group(GroupKind::Braces, "}")?,
                Some("if") => self.skip(2).group(GroupKind::Branch, "fi")?,
                Some("while" | "until") => self.skip(5).group(GroupKind::Loop, "done")?,
                Some("for") => self.skip(3).for_loop()?,
                Some("select") => self.skip(6).for_loop()?,
                Some("case") => self.skip(4).case()?,
                Some("function") => {
                    self.skip(8).blanks();
                    let name = self.word()?.literal();
                    self.function(name)?
                }
                _ => self.simple(&mut redirects)?,
            }
        };
        loop {
            self.blanks();
            let Some(redirect) = self.redirect(None)? else { break };
            redirects.push(redirect);
        }
        self.budget.leave();
        Ok(Stage { command, redirects })
    }

    fn skip(&mut self, length: usize) -> &mut Self {
        self.at += length;
        self
    }

    fn group(&mut self, kind: GroupKind, closer: &str) -> Result<Command, Risk> {
        let body = self.script(&[closer])?;
        if self.peek(0).is_some() {
            self.at += closer.len();
        }
        Ok(Command::Group { kind, body })
    }

    fn for_loop(&mut self) -> Result<Command, Risk> {
        self.blanks();
        let variable = self.word()?.literal();
        self.separators()?;
        let mut values = Vec::new();
        if self.reserved().as_deref() == Some("in") {
            self.at += 2;
            while let Some(word) = self.next_word()? {
                values.push(word);
            }
        }
        let body = self.script(&["done"])?;
        if self.peek(0).is_some() {
            self.at += "done".len();
        }
        Ok(Command::For { variable, values, body })
    }

    /// Parses a `case` command. Its subject and patterns become arguments of the no-op command `:`, so that
    /// their expansions are analyzed.
    fn case(&mut self) -> Result<Command, Risk> {
        let mut words = vec![Word { parts: vec![Part::Literal { text: ":".to_owned(), quoted: false }] }];
        words.extend(self.next_word()?);
        let mut body = Script::default();
        self.separators()?;
        if self.reserved().as_deref() == Some("in") {
            self.at += 2;
        }
        loop {
            self.separators()?;
            if self.peek(0).is_none() {
                break;
            }
            if self.reserved().as_deref() == Some("esac") {
                self.at += 4;
                break;
            }
            self.eat('(');
            while self.peek(0).is_some_and(|c| c != ')' && c != '\n') {
                let start = self.at;
                words.extend(self.next_word()?);
                self.at += usize::from(self.at == start && self.peek(0) != Some(')'));
            }
            self.eat(')');
            body.pipelines.append(&mut self.clause()?.pipelines);
        }
        let words = Stage { command: Command::Simple(words), redirects: Vec::new() };
        body.pipelines.push(Pipeline { stages: vec![words], conditional: false, background: false });
        Ok(Command::Group { kind: GroupKind::Branch, body })
    }

    /// Parses the commands of one clause of a `case` command, up to `;;` or `esac`.
    fn clause(&mut self) -> Result<Script, Risk> {
        let mut script = Script::default();
        loop {
            self.blanks();
            if self.eat_text(";;") || self.eat_text(";&") || self.peek(0).is_none() {
                return Ok(script);
            }
            if self.peek(0) == Some(';') {
                self.at += 1;
                continue;
            }
            let conditional = self.separators()?;
            if self.reserved().as_deref() == Some("esac") || self.peek(0).is_none() {
                return Ok(script);
            }
            let start = self.at;
            script.pipelines.push(self.pipeline(conditional)?);
            self.at += usize::from(self.at == start);
        }
    }

    fn function(&mut self, name: String) -> Result<Command, Risk> {
        self.blanks();
        if self.eat('(') {
            self.blanks();
            self.eat(')');
        }
        self.separators()?;
        let stage = self.stage()?;
        let body = Script {
            pipelines: vec![Pipeline { stages: vec![stage], conditional: false, background: false }],
        };
        Ok(Command::Function { name, body: Rc::new(body) })
    }

    fn next_word(&mut self) -> Result<Option<Word>, Risk> {
        self.blanks();
        let ends = self.peek(0).is_none_or(|c| "\n;&|()#<>".contains(c) && !self.is_process_substitution());
        if ends { Ok(None) } else { self.word().map(Some) }
    }

    fn is_process_substitution(&self) -> bool {
        matches!((self.peek(0), self.peek(1)), (Some('<' | '>'), Some('(')))
    }

    fn simple(&mut self, redirects: &mut Vec<Redirect>) -> Result<Command, Risk> {
        let mut words: Vec<Word> = Vec::new();
        loop {
            self.blanks();
            match self.peek(0) {
                Some('#') => self.comment(),
                Some('(') if words.len() == 1 => {
                    let name = words.first().map(Word::literal).unwrap_or_default();
                    return self.function(name);
                }
                Some('<' | '>') if self.is_process_substitution() => words.push(self.word()?),
                Some('&') if self.peek(1) == Some('>') => redirects.extend(self.redirect(None)?),
                Some('<' | '>') => redirects.extend(self.redirect(None)?),
                None | Some('\n' | ';' | '&' | '|' | '(' | ')') => return Ok(Command::Simple(words)),
                Some(_) => {
                    let word = self.word()?;
                    let number = word.plain().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
                    match number.map(str::to_owned) {
                        Some(fd) if matches!(self.peek(0), Some('<' | '>')) => {
                            redirects.extend(self.redirect(Some(fd))?);
                        }
                        _ => words.push(word),
                    }
                }
            }
        }
    }

    /// Parses a redirection. Returns `None` if there is none at this position.
    fn redirect(&mut self, fd: Option<String>) -> Result<Option<Redirect>, Risk> {
        if self.is_process_substitution() {
            return Ok(None);
        }
        let here_document = || RedirectKind::HereDocument(Rc::default());
        let operators: [(&str, RedirectKind); 12] = [
            ("<<<", RedirectKind::HereString),
            ("<<-", here_document()),
            ("<<", here_document()),
            ("<>", RedirectKind::InOut),
            ("<&", RedirectKind::Duplicate),
            ("<", RedirectKind::In),
            ("&>>", RedirectKind::Append),
            ("&>", RedirectKind::Out),
            (">>", RedirectKind::Append),
            (">|", RedirectKind::Out),
            (">&", RedirectKind::Duplicate),
            (">", RedirectKind::Out),
        ];
        let Some((operator, kind)) = operators.into_iter().find(|(text, _)| self.eat_text(text)) else {
            return Ok(None);
        };
        self.blanks();
        let target = self.next_word()?.unwrap_or_default();
        if let RedirectKind::HereDocument(body) = &kind {
            let quoted = |part: &Part| matches!(part, Part::Literal { quoted: true, .. });
            self.pending.push(PendingHereDocument {
                delimiter: target.literal(),
                expands: !target.parts.iter().any(quoted),
                strips_tabs: operator == "<<-",
                body: Rc::clone(body),
            });
        }
        Ok(Some(Redirect { fd, kind, target }))
    }
}
