//! Reads the words of a command: quotes, and what is expanded in them.

use super::Danger;
use super::escapes;
use super::parse::{self, Parser};
use super::syntax::{Form, Parameter, Part, Word};

impl Parser<'_> {
    /// A word: up to a blank or an operator.
    pub(super) fn word(&mut self) -> Result<Word, Danger> {
        let mut word = Word::default();
        while let Some(c) = self.peek(0) {
            match c {
                '<' | '>' if self.peek(1) == Some('(') => {
                    self.at += 2;
                    let script = self.script(&[")"])?;
                    self.eat(')');
                    word.parts.push(Part::Process(script));
                }
                '(' if word.plain().is_some_and(|text| text.ends_with('=')) => self.array(&mut word)?,
                ' ' | '\t' | '\n' | ';' | '&' | '|' | '<' | '>' | '(' | ')' => break,
                _ => self.unquoted(&mut word)?,
            }
        }
        Ok(word)
    }

    /// The elements of `x=(a b)`, with blanks between them.
    fn array(&mut self, word: &mut Word) -> Result<(), Danger> {
        self.budget.enter()?;
        self.at += 1;
        while self.peek(0).is_some_and(|c| c != ')') {
            if self.peek(0).is_some_and(|c| c.is_whitespace() || ";&|<>(".contains(c)) {
                self.at += 1;
                continue;
            }
            let mut element = self.word()?;
            word.push_char(' ', false);
            word.parts.append(&mut element.parts);
        }
        self.eat(')');
        self.budget.leave();
        Ok(())
    }

    /// One piece of a word outside of double quotes.
    fn unquoted(&mut self, word: &mut Word) -> Result<(), Danger> {
        let Some(c) = self.peek(0) else { return Ok(()) };
        self.at += 1;
        match c {
            '\\' => {
                if let Some(next) = self.peek(0) {
                    self.at += 1;
                    if next != '\n' {
                        word.push_char(next, true);
                    }
                }
            }
            '\'' => {
                let text = self.raw_until('\'', false);
                word.parts.push(Part::Text { text, quoted: true });
            }
            '"' => {
                let mut inside = self.quoted_until(Some('"'))?;
                word.parts.push(Part::Text { text: String::new(), quoted: true });
                word.parts.append(&mut inside.parts);
            }
            '$' => self.dollar(word, false)?,
            '`' => self.backticks(word, false)?,
            c => word.push_char(c, false),
        }
        Ok(())
    }

    /// The text up to a character, which is passed over; with `escapes`, one after a backslash does not count.
    fn raw_until(&mut self, end: char, escapes: bool) -> String {
        let mut text = String::new();
        while let Some(c) = self.peek(0) {
            self.at += 1;
            if c == end {
                break;
            }
            text.push(c);
            if c == '\\' && escapes {
                text.extend(self.peek(0));
                self.at += 1;
            }
        }
        text
    }

    /// What stands in double quotes, or in a here-document (`None`: to the end).
    pub(super) fn quoted_until(&mut self, end: Option<char>) -> Result<Word, Danger> {
        let mut word = Word::default();
        while let Some(c) = self.peek(0) {
            self.at += 1;
            match c {
                c if Some(c) == end => break,
                '\\' => match self.peek(0) {
                    Some('\n') => self.at += 1,
                    Some(next) if "$`\\".contains(next) || Some(next) == end => {
                        self.at += 1;
                        word.push_char(next, true);
                    }
                    _ => word.push_char('\\', true),
                },
                '$' => self.dollar(&mut word, true)?,
                '`' => self.backticks(&mut word, true)?,
                c => word.push_char(c, true),
            }
        }
        Ok(word)
    }

    /// What follows a dollar.
    fn dollar(&mut self, word: &mut Word, quoted: bool) -> Result<(), Danger> {
        match self.peek(0) {
            Some('\'') if !quoted => {
                self.at += 1;
                let text = escapes::unescape(&self.raw_until('\'', true));
                word.parts.push(Part::Text { text, quoted: true });
            }
            Some('"') if !quoted => {}
            Some('(') => {
                if let Some(text) = self.calculation()? {
                    self.budget.enter()?;
                    let inside = Parser::new(&text, self.budget)?.quoted_until(None)?;
                    self.budget.leave();
                    word.parts.push(Part::Silent(inside));
                    word.push_char('1', quoted);
                } else {
                    self.at += 1;
                    let script = self.script(&[")"])?;
                    self.eat(')');
                    word.parts.push(Part::Script { script, quoted });
                }
            }
            Some('{') => {
                self.at += 1;
                self.budget.enter()?;
                self.braced(word, quoted)?;
                self.budget.leave();
            }
            Some(c) if is_name(c) || "@*#?$!-".contains(c) => {
                let name = self.name();
                let parameter = Parameter { name, index: None, form: Form::Plain };
                word.parts.push(Part::Parameter { parameter, quoted });
            }
            _ => word.push_char('$', quoted),
        }
        Ok(())
    }

    /// The name of a variable, or the one character of a special one.
    fn name(&mut self) -> String {
        let mut name: String = self.peek(0).into_iter().collect();
        self.at += name.len();
        if name.chars().all(|c| is_name(c) && !c.is_ascii_digit()) {
            while let Some(c) = self.peek(0).filter(|c| is_name(*c)) {
                name.push(c);
                self.at += 1;
            }
        }
        name
    }

    /// The inside of `$((…))`, if this is one: its second parenthesis closes together with the first.
    fn calculation(&mut self) -> Result<Option<String>, Danger> {
        if self.peek(1) != Some('(') {
            return Ok(None);
        }
        let rest = self.chars.get(self.at + 2..).unwrap_or_default();
        let mut depth = 2_usize;
        let end = rest.iter().position(|c| {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            depth == 1
        });
        // One that is never closed is looked for again from the next.
        self.budget.charge(end.unwrap_or(rest.len()))?;
        let Some(end) = end.filter(|end| rest.get(end + 1) == Some(&')')) else { return Ok(None) };
        let text = rest.iter().take(end).collect();
        self.at += end + 4;
        Ok(Some(text))
    }

    fn backticks(&mut self, word: &mut Word, quoted: bool) -> Result<(), Danger> {
        let raw = self.raw_until('`', true);
        let mut text = String::with_capacity(raw.len());
        let mut chars = raw.chars().peekable();
        while let Some(c) = chars.next() {
            let escaped = chars
                .peek()
                .copied()
                .filter(|next| c == '\\' && ("`$\\".contains(*next) || (quoted && *next == '"')));
            text.push(escaped.unwrap_or(c));
            if escaped.is_some() {
                chars.next();
            }
        }
        let script = parse::parse(&text, self.budget)?;
        word.parts.push(Part::Script { script, quoted });
        Ok(())
    }

    /// What follows `${`.
    fn braced(&mut self, word: &mut Word, quoted: bool) -> Result<(), Danger> {
        let marks = |c: Option<char>| c.is_some_and(|c| is_name(c) || "@*".contains(c));
        let mark = self.peek(0).filter(|c| matches!(c, '#' | '!') && marks(self.peek(1)));
        self.at += usize::from(mark.is_some());
        let mut name = self.name();
        while name.bytes().all(|b| b.is_ascii_digit())
            && let Some(digit) = self.peek(0).filter(char::is_ascii_digit)
        {
            name.push(digit);
            self.at += 1;
        }
        let mut index = None;
        if self.eat('[') {
            let inside = self.until(&[']'], quoted)?;
            self.eat(']');
            index = Some(inside.literal());
            word.parts.push(Part::Silent(inside));
        }
        let form = match mark {
            Some('#') => Form::Length,
            Some(_) => Form::Indirect,
            None => self.form(quoted)?,
        };
        // What is left before the brace is of no form that is known.
        let rest = self.until(&['}'], quoted)?;
        self.eat('}');
        if !rest.parts.is_empty() {
            word.parts.push(Part::Silent(rest));
        }
        word.parts.push(Part::Parameter { parameter: Parameter { name, index, form }, quoted });
        Ok(())
    }

    fn form(&mut self, quoted: bool) -> Result<Form, Danger> {
        let colon = self.peek(0) == Some(':') && self.peek(1).is_some_and(|c| "-=+?".contains(c));
        self.at += usize::from(colon);
        let Some(operator) = self.peek(0).filter(|c| *c != '}') else { return Ok(Form::Plain) };
        self.at += 1;
        let doubled = "#%/^,".contains(operator) && self.eat(operator);
        if operator == '/' {
            let from = self.until(&['/', '}'], quoted)?;
            self.eat('/');
            return Ok(Form::Replace { from, to: self.until(&['}'], quoted)? });
        }
        let rest = self.until(&['}'], quoted)?;
        Ok(match operator {
            '-' => Form::Default(rest),
            '=' => Form::Assign(rest),
            '+' => Form::Alternative(rest),
            '?' => Form::Required(rest),
            '#' => Form::StripPrefix { pattern: rest, longest: doubled },
            '%' => Form::StripSuffix { pattern: rest, longest: doubled },
            ':' => Form::Slice(rest),
            '^' if doubled && rest.parts.is_empty() => Form::Upper,
            ',' if doubled && rest.parts.is_empty() => Form::Lower,
            _ => Form::Other(rest),
        })
    }

    /// A piece of a parameter's braces, up to one of these characters, which is left.
    fn until(&mut self, ends: &[char], quoted: bool) -> Result<Word, Danger> {
        let mut word = Word::default();
        while let Some(c) = self.peek(0) {
            match c {
                c if ends.contains(&c) => break,
                '\'' if quoted => {
                    self.at += 1;
                    word.push_char(c, true);
                }
                _ => self.unquoted(&mut word)?,
            }
        }
        Ok(word)
    }
}

pub(super) fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}
