//! Reads the commands of a script. What no shell would accept is read as well as it can be: each command that
//! stands anywhere is found.

use std::cell::OnceCell;
use std::rc::Rc;

use super::Danger;
use super::budget::Budget;
use super::syntax::{Command, Item, Kind, Part, Redirect, RedirectKind, Script, Stage, Word};

/// Words that stand between commands and are none.
const BETWEEN: &[&str] = &["then", "else", "elif", "fi", "do", "done", "esac", "in", "}", "!", "coproc"];

pub(super) struct Parser<'a> {
    pub(super) chars: Vec<char>,
    pub(super) at: usize,
    pub(super) budget: &'a mut Budget,
    /// Here-documents whose text begins after this line.
    pending: Vec<Here>,
}

struct Here {
    delimiter: String,
    expands: bool,
    strips_tabs: bool,
    body: Rc<OnceCell<Word>>,
}

/// Reads a whole script.
pub(super) fn parse(text: &str, budget: &mut Budget) -> Result<Script, Danger> {
    Parser::new(text, budget)?.script(&[])
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &str, budget: &'a mut Budget) -> Result<Self, Danger> {
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

    /// Commands up to one of the closing words, or `)`, which is left; those of the whole text if there is none.
    pub(super) fn script(&mut self, closers: &[&str]) -> Result<Script, Danger> {
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
                if BETWEEN.contains(&word.as_str()) {
                    self.at += word.len();
                    continue;
                }
            }
            let start = self.at;
            let item = self.item(conditional)?;
            conditional = false;
            script.items.push(item);
            // What cannot begin a command is passed over.
            self.at += usize::from(self.at == start);
        }
        self.budget.leave();
        Ok(script)
    }

    /// Passes over what separates commands; whether the last was `&&` or `||`.
    fn separators(&mut self) -> Result<bool, Danger> {
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

    /// Passes over blanks and continued lines.
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

    /// Passes over the end of a line, and the here-documents that follow it.
    fn newline(&mut self) -> Result<(), Danger> {
        self.at += 1;
        for here in std::mem::take(&mut self.pending) {
            let mut text = String::new();
            while self.peek(0).is_some() {
                let rest = self.chars.get(self.at..).unwrap_or_default();
                let length = rest.iter().position(|c| *c == '\n').unwrap_or(rest.len());
                let line: String = rest.iter().take(length).collect();
                self.at += length + 1;
                let line = if here.strips_tabs { line.trim_start_matches('\t') } else { &line };
                if line == here.delimiter {
                    break;
                }
                text.push_str(line);
                text.push('\n');
            }
            let body = if here.expands {
                self.budget.enter()?;
                let word = Parser::new(&text, self.budget)?.quoted_until(None)?;
                self.budget.leave();
                word
            } else {
                Word { parts: vec![Part::Text { text, quoted: true }] }
            };
            // Each is filled once: it is taken from the pending ones.
            let _ = here.body.set(body);
        }
        Ok(())
    }

    /// The word ahead, if it is one that could be reserved.
    fn reserved(&self) -> Option<String> {
        let rest = self.chars.get(self.at..)?;
        let length = rest.iter().take(9).position(|c| !matches!(c, 'a'..='z' | '{' | '}' | '!'));
        let length = length.unwrap_or(rest.len());
        let ends = rest.get(length).is_none_or(|c| c.is_whitespace() || ";&|()<>".contains(*c));
        (length > 0 && length < 9 && ends).then(|| rest.iter().take(length).collect())
    }

    fn item(&mut self, conditional: bool) -> Result<Item, Danger> {
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
        Ok(Item { stages, conditional, background })
    }

    fn stage(&mut self) -> Result<Stage, Danger> {
        self.budget.enter()?;
        let mut redirects = Vec::new();
        let command = if self.eat('(') {
            self.group(Kind::Subshell, ")")?
        } else {
            match self.reserved().as_deref() {
                Some("{") => self.after(1).group(Kind::Braces, "}")?,
                Some("if") => self.after(2).group(Kind::Branch, "fi")?,
                Some("while" | "until") => self.after(5).group(Kind::Loop, "done")?,
                Some("for") => self.after(3).for_loop()?,
                Some("select") => self.after(6).for_loop()?,
                Some("case") => self.after(4).case()?,
                Some("function") => {
                    self.after(8).blanks();
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

    fn after(&mut self, length: usize) -> &mut Self {
        self.at += length;
        self
    }

    fn group(&mut self, kind: Kind, closer: &str) -> Result<Command, Danger> {
        let body = self.script(&[closer])?;
        if self.peek(0).is_some() {
            self.at += closer.len();
        }
        Ok(Command::Group { kind, body })
    }

    fn for_loop(&mut self) -> Result<Command, Danger> {
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

    /// The subject and the patterns of a case become the arguments of a command that does nothing, so that
    /// what they expand is judged.
    fn case(&mut self) -> Result<Command, Danger> {
        let mut words = vec![Word { parts: vec![Part::Text { text: ":".to_owned(), quoted: false }] }];
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
            body.items.append(&mut self.clause()?.items);
        }
        let words = Stage { command: Command::Simple(words), redirects: Vec::new() };
        body.items.push(Item { stages: vec![words], conditional: false, background: false });
        Ok(Command::Group { kind: Kind::Branch, body })
    }

    /// The commands of one clause of a case, up to `;;` or `esac`.
    fn clause(&mut self) -> Result<Script, Danger> {
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
            script.items.push(self.item(conditional)?);
            self.at += usize::from(self.at == start);
        }
    }

    fn function(&mut self, name: String) -> Result<Command, Danger> {
        self.blanks();
        if self.eat('(') {
            self.blanks();
            self.eat(')');
        }
        self.separators()?;
        let stage = self.stage()?;
        let body =
            Script { items: vec![Item { stages: vec![stage], conditional: false, background: false }] };
        Ok(Command::Function { name, body: Rc::new(body) })
    }

    fn next_word(&mut self) -> Result<Option<Word>, Danger> {
        self.blanks();
        let ends = self.peek(0).is_none_or(|c| "\n;&|()#<>".contains(c) && !self.is_process());
        if ends { Ok(None) } else { self.word().map(Some) }
    }

    fn is_process(&self) -> bool {
        matches!((self.peek(0), self.peek(1)), (Some('<' | '>'), Some('(')))
    }

    fn simple(&mut self, redirects: &mut Vec<Redirect>) -> Result<Command, Danger> {
        let mut words: Vec<Word> = Vec::new();
        loop {
            self.blanks();
            match self.peek(0) {
                Some('#') => self.comment(),
                Some('(') if words.len() == 1 => {
                    let name = words.first().map(Word::literal).unwrap_or_default();
                    return self.function(name);
                }
                Some('<' | '>') if self.is_process() => words.push(self.word()?),
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

    /// A redirection, if one begins here.
    fn redirect(&mut self, fd: Option<String>) -> Result<Option<Redirect>, Danger> {
        if self.is_process() {
            return Ok(None);
        }
        let here = || RedirectKind::Here(Rc::default());
        let operators: [(&str, RedirectKind); 12] = [
            ("<<<", RedirectKind::HereString),
            ("<<-", here()),
            ("<<", here()),
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
        if let RedirectKind::Here(body) = &kind {
            let quoted = |part: &Part| matches!(part, Part::Text { quoted: true, .. });
            self.pending.push(Here {
                delimiter: target.literal(),
                expands: !target.parts.iter().any(quoted),
                strips_tabs: operator == "<<-",
                body: Rc::clone(body),
            });
        }
        Ok(Some(Redirect { fd, kind, target }))
    }
}
