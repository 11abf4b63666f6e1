//! Parses the words of commands: quotes and expansions.

use super::Risk;
use super::escapes;
use super::parse::{self, Parser};
use super::syntax::{Operation, Parameter, Part, Word};

impl Parser<'_> {
    /// Parses a word, up to whitespace or an operator.
    pub(super) fn word(&mut self) -> Result<Word, Risk> {
        let mut word = Word::default();
        while let Some(c) = self.peek(0) {
            match c {
                '<' | '>' if self.peek(1) == Some('(') => {
                    self.at += 2;
                    let script = self.script(&[")"])?;
                    self.eat(')');
                    word.parts.push(Part::ProcessSubstitution(script));
                }
                '(' if word.plain().is_some_and(|text| text.ends_with('=')) => self.array(&mut word)?,
                ' ' | '\t' | '\n' | ';' | '&' | '|' | '<' | '>' | '(' | ')' => break,
                _ => self.unquoted(&mut word)?,
            }
        }
        Ok(word)
    }

    /// Parses the elements of an array assignment such as `x=(a b)`, and joins them with spaces.
    fn array(&mut self, word: &mut Word) -> Result<(), Risk> {
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

    /// Parses the next part of a word outside double quotes.
    fn unquoted(&mut self, word: &mut Word) -> Result<(), Risk> {
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
                word.parts.push(Part::Literal { text, quoted: true });
            }
            '"' => {
                let mut inside = self.quoted_until(Some('"'))?;
                word.parts.push(Part::Literal { text: String::new(), quoted: true });
                word.parts.append(&mut inside.parts);
            }
            '$' => self.dollar(word, false)?,
            '`' => self.backticks(word, false)?,
            c => word.push_char(c, false),
        }
        Ok(())
    }

    /// Consumes the text up to and including the character `end`, and returns it without `end`. If `escapes`
    /// is true, an `end` character after a backslash does not end the text.
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

    /// Parses text in which only expansions are special. This is either the inside of double quotes, up to
    /// the character `end`, or, if `end` is `None`, the whole text of a here-document.
    pub(super) fn quoted_until(&mut self, end: Option<char>) -> Result<Word, Risk> {
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

    /// Parses the expansion that follows a dollar sign.
    fn dollar(&mut self, word: &mut Word, quoted: bool) -> Result<(), Risk> {
        match self.peek(0) {
            Some('\'') if !quoted => {
                self.at += 1;
                let text = escapes::unescape(&self.raw_until('\'', true));
                word.parts.push(Part::Literal { text, quoted: true });
            }
            Some('"') if !quoted => {}
            Some('(') => {
                if let Some(text) = self.arithmetic()? {
                    self.budget.enter()?;
                    let inside = Parser::new(&text, self.budget)?.quoted_until(None)?;
                    self.budget.leave();
                    word.parts.push(Part::Discarded(inside));
                    word.push_char('1', quoted);
                } else {
                    self.at += 1;
                    let script = self.script(&[")"])?;
                    self.eat(')');
                    word.parts.push(Part::CommandSubstitution { script, quoted });
                }
            }
            Some('{') => {
                self.at += 1;
                self.budget.enter()?;
                self.parameter_expansion(word, quoted)?;
                self.budget.leave();
            }
            Some(c) if is_name(c) || "@*#?$!-".contains(c) => {
                let name = self.name();
                let parameter = Parameter { name, index: None, operation: Operation::Plain };
                word.parts.push(Part::Parameter { parameter, quoted });
            }
            _ => word.push_char('$', quoted),
        }
        Ok(())
    }

    /// Parses a variable name, or a special parameter of one character such as `?`.
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

    /// Returns the inside of an arithmetic expansion `$((…))`. Returns `None` if the closing parentheses are
    /// not adjacent: the text is then a command substitution that begins with a subshell, as in `$((a); b)`.
    fn arithmetic(&mut self) -> Result<Option<String>, Risk> {
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
        // The search is charged to the budget, because it takes quadratic time in a script with many unclosed
        // `((`: for each of them, it scans the rest of the script.
        self.budget.charge(end.unwrap_or(rest.len()))?;
        let Some(end) = end.filter(|end| rest.get(end + 1) == Some(&')')) else { return Ok(None) };
        let text = rest.iter().take(end).collect();
        self.at += end + 4;
        Ok(Some(text))
    }

    fn backticks(&mut self, word: &mut Word, quoted: bool) -> Result<(), Risk> {
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
        word.parts.push(Part::CommandSubstitution { script, quoted });
        Ok(())
    }

    /// Parses the parameter expansion that follows `${`.
    fn parameter_expansion(&mut self, word: &mut Word, quoted: bool) -> Result<(), Risk> {
        let starts_name = |c: Option<char>| c.is_some_and(|c| is_name(c) || "@*".contains(c));
        let prefix = self.peek(0).filter(|c| matches!(c, '#' | '!') && starts_name(self.peek(1)));
        self.at += usize::from(prefix.is_some());
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
            word.parts.push(Part::Discarded(inside));
        }
        let operation = match prefix {
            Some('#') => Operation::Length,
            Some(_) => Operation::Indirect,
            None => self.operation(quoted)?,
        };
        // Text that remains before the closing brace belongs to an operation that the analyzer does not know.
        let rest = self.until(&['}'], quoted)?;
        self.eat('}');
        if !rest.parts.is_empty() {
            word.parts.push(Part::Discarded(rest));
        }
        word.parts.push(Part::Parameter { parameter: Parameter { name, index, operation }, quoted });
        Ok(())
    }

    fn operation(&mut self, quoted: bool) -> Result<Operation, Risk> {
        let colon = self.peek(0) == Some(':') && self.peek(1).is_some_and(|c| "-=+?".contains(c));
        self.at += usize::from(colon);
        let Some(operator) = self.peek(0).filter(|c| *c != '}') else { return Ok(Operation::Plain) };
        self.at += 1;
        let doubled = "#%/^,".contains(operator) && self.eat(operator);
        if operator == '/' {
            let from = self.until(&['/', '}'], quoted)?;
            self.eat('/');
            return Ok(Operation::Replace { from, to: self.until(&['}'], quoted)? });
        }
        let rest = self.until(&['}'], quoted)?;
        Ok(match operator {
            '-' => Operation::Default(rest),
            '=' => Operation::Assign(rest),
            '+' => Operation::Alternative(rest),
            '?' => Operation::Required(rest),
            '#' => Operation::StripPrefix { pattern: rest, longest: doubled },
            '%' => Operation::StripSuffix { pattern: rest, longest: doubled },
            ':' => Operation::Slice(rest),
            '^' if doubled && rest.parts.is_empty() => Operation::Upper,
            ',' if doubled && rest.parts.is_empty() => Operation::Lower,
            _ => Operation::Other(rest),
        })
    }

    /// Parses a part of a parameter expansion, up to one of the characters `ends`, which is not consumed.
    fn until(&mut self, ends: &[char], quoted: bool) -> Result<Word, Risk> {
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
