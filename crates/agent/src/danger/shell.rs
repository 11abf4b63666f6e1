//! Shells inside of shells, and what a shell does itself.

use std::rc::Rc;

use super::Danger;
use super::escapes;
use super::judge::{Judge, Text, Verdict};
use super::program::shown;
use super::wrappers::is_cluster;

const SHELLS: &[&str] = &["sh", "bash", "dash", "zsh", "ksh", "ash", "fish", "mksh", "rbash"];

impl Judge {
    /// Follows what a shell does itself; what it prints.
    pub(super) fn builtin(&mut self, name: &str, args: &[Text]) -> Verdict<Option<Text>> {
        match name {
            _ if SHELLS.contains(&name) => return self.shell(name, args).map(Some),
            "eval" => {
                let mut script = Text::default();
                for arg in args {
                    script.push(arg);
                    script.text.push(' ');
                }
                self.refuse_unresolved(&script, name, args)?;
                return self.run_text(&script, &shown(&Text::known(name), args)).map(Some);
            }
            "." | "source" => {
                let Some(file) = args.first() else { return Ok(None) };
                return self.run_file(file, &shown(&Text::known(name), args)).map(Some);
            }
            "trap" => {
                if let Some(script) = args.iter().find(|arg| !arg.text.starts_with('-')) {
                    self.traps.push(script.text.clone());
                }
            }
            "alias" => {
                for arg in args {
                    if let Some((name, text)) = arg.text.split_once('=') {
                        self.aliases.insert(name.to_owned(), text.to_owned());
                    }
                }
            }
            "set" => self.set(args),
            "export" | "declare" | "typeset" | "local" | "readonly" => self.declare(args),
            "read" | "mapfile" | "readarray" => self.read_variables(name, args),
            "unset" => args.iter().for_each(|arg| drop(self.variables.remove(&arg.text))),
            "cd" | "pushd" => {
                let path = args.iter().find(|arg| !arg.text.starts_with('-') || arg.text.len() == 1);
                let path = path.map_or("~", |arg| arg.text.as_str());
                if path != "-" {
                    self.directory = Some(self.resolve(path));
                }
            }
            "printf" if args.first().is_some_and(|arg| arg.text == "-v") => {
                if let [_, name, rest @ ..] = args {
                    let value = self.output("printf", rest)?;
                    self.assign(&name.text, value);
                }
            }
            _ => return Ok(None),
        }
        Ok(if args.is_empty() { None } else { Some(Text::default()) })
    }

    /// A shell: with a script, a file, or what it reads.
    fn shell(&mut self, name: &str, args: &[Text]) -> Verdict<Text> {
        let shown = shown(&Text::known(name), args);
        let (mut at, mut is_script, mut is_stdin) = (0, false, false);
        while let Some(arg) = args.get(at)
            && arg.text.starts_with(['-', '+'])
            && arg.text.len() > 1
        {
            at += 1;
            if arg.text == "--" {
                break;
            }
            is_script |= is_cluster(&arg.text, 'c');
            is_stdin |= is_cluster(&arg.text, 's');
            let takes_value = if arg.text.starts_with("--") {
                matches!(arg.text.as_str(), "--rcfile" | "--init-file")
            } else {
                arg.text.ends_with(['o', 'O'])
            };
            at += usize::from(takes_value);
        }
        let operands = args.get(at..).unwrap_or_default();
        match operands {
            [script, rest @ ..] if is_script => {
                self.refuse_unresolved(script, name, args)?;
                let given = rest.get(1..).unwrap_or_default().to_vec();
                let outer = self.positional.replace(given);
                let output = self.run_text(script, &shown)?;
                self.positional = outer;
                Ok(output)
            }
            [file, rest @ ..] if !is_stdin => {
                let outer = self.positional.replace(rest.to_vec());
                let output = self.run_file(file, &shown)?;
                self.positional = outer;
                Ok(output)
            }
            _ => {
                let outer = self.positional.replace(operands.to_vec());
                let input = std::mem::take(&mut self.input);
                let output = self.run_text(&input, &shown)?;
                self.input = input;
                self.positional = outer;
                Ok(output)
            }
        }
    }

    /// A file that is run as a script: what is known of it.
    fn run_file(&mut self, file: &Text, shown: &str) -> Verdict<Text> {
        let script = self.read(file);
        let input =
            if *self.input == script { std::mem::take(&mut self.input) } else { Rc::clone(&self.input) };
        let output = self.run_text(&script, shown)?;
        self.input = input;
        Ok(output)
    }

    /// Refuses to run a text of which nothing is known, unless it is what tools print to be run.
    fn refuse_unresolved(&self, script: &Text, name: &str, args: &[Text]) -> Verdict<()> {
        let is_bad = script.is_unknown() && !script.origin.setup;
        if is_bad && !script.origin.network && !script.origin.decoded {
            let what = "it runs a text as a program that is not known before";
            return Err(Danger::new("unresolved_code", what, &shown(&Text::known(name), args)));
        }
        Ok(())
    }

    fn set(&mut self, args: &[Text]) {
        let options =
            args.iter().take_while(|arg| arg.text.starts_with(['-', '+']) && arg.text != "--").count();
        let mut rest = args.get(options..).unwrap_or_default();
        if let [first, after @ ..] = rest
            && first.text == "--"
        {
            rest = after;
        }
        let is_option = options > 0 && args.get(options - 1).is_some_and(|arg| arg.text.ends_with('o'));
        if !is_option && !args.is_empty() && !rest.is_empty() {
            self.positional = Some(rest.to_vec());
        }
    }

    fn declare(&mut self, args: &[Text]) {
        for arg in args {
            if let Some((name, value)) = arg.text.split_once('=') {
                self.assign(name, Text { text: value.to_owned(), origin: arg.origin });
            }
        }
    }

    /// Gives variables what is read: each line may be the one.
    fn read_variables(&mut self, name: &str, args: &[Text]) {
        let input = Rc::clone(&self.input);
        let names = args.iter().filter(|arg| !arg.text.starts_with('-')).map(|arg| arg.text.clone());
        let mut names: Vec<String> = names.collect();
        if names.is_empty() {
            names.push("REPLY".to_owned());
        }
        let outer = std::mem::replace(&mut self.may_not_happen, true);
        let last = names.len() - 1;
        for line in input.text.lines() {
            let text = if name == "read" { line } else { input.text.as_str() };
            let mut words = text.splitn(names.len(), char::is_whitespace);
            for (at, name) in names.iter().enumerate() {
                let text = words.next().unwrap_or_default();
                let text = if at == last { text.trim() } else { text };
                self.assign(name, Text { text: text.to_owned(), origin: input.origin });
            }
            if name != "read" {
                break;
            }
        }
        self.may_not_happen = outer;
    }
}

/// What `echo` or `printf` print.
pub(super) fn printed(name: &str, args: &[Text]) -> Text {
    let mut output = Text::default();
    if name == "echo" {
        let is_option = |arg: &&Text| {
            arg.text.len() > 1
                && arg.text.strip_prefix('-').is_some_and(|rest| rest.chars().all(|c| "neE".contains(c)))
        };
        let options = args.iter().take_while(is_option).count();
        for arg in args.iter().skip(options) {
            if !output.text.is_empty() {
                output.text.push(' ');
            }
            output.push(arg);
        }
        output.text.push('\n');
    } else if let [format, values @ ..] = args {
        output.origin = values.iter().fold(format.origin, |origin, value| origin.and(value.origin));
        output.text = formatted(&format.text, values);
    }
    // Code that is spelt by numbers is spelt to be unreadable.
    output.origin.decoded |= args.iter().any(|arg| escapes::spells_by_number(&arg.text));
    output.text = escapes::unescape(&output.text);
    output
}

/// A `printf` format, used again while there are values.
fn formatted(format: &str, values: &[Text]) -> String {
    let mut values = values.iter();
    let mut text = String::new();
    loop {
        let before = values.len();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                text.push(c);
                continue;
            }
            match chars.by_ref().find(|c| c.is_ascii_alphabetic() || *c == '%') {
                Some('%') | None => text.push('%'),
                Some(_) => text.push_str(values.next().map_or("", |value| value.text.as_str())),
            }
        }
        if values.len() == 0 || values.len() == before {
            return text;
        }
    }
}
