//! Analyzes nested shells such as `sh -c`, and simulates shell builtins.

use std::rc::Rc;

use super::Risk;
use super::analyzer::{Analysis, Analyzer, Value};
use super::escapes;
use super::program::command_line;
use super::wrappers::has_short_option;

const SHELLS: &[&str] = &["sh", "bash", "dash", "zsh", "ksh", "ash", "fish", "mksh", "rbash"];

impl Analyzer {
    /// Simulates a shell builtin. Returns its output, or `None` if `name` is not a builtin.
    pub(super) fn builtin(&mut self, name: &str, args: &[Value]) -> Analysis<Option<Value>> {
        match name {
            _ if SHELLS.contains(&name) => return self.shell(name, args).map(Some),
            "eval" => {
                let mut script = Value::default();
                for arg in args {
                    script.push(arg);
                    script.text.push(' ');
                }
                self.reject_unresolved(&script, name, args)?;
                return self.run_text(&script, &command_line(&Value::known(name), args)).map(Some);
            }
            "." | "source" => {
                let Some(file) = args.first() else { return Ok(None) };
                return self.run_file(file, &command_line(&Value::known(name), args)).map(Some);
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
        Ok(if args.is_empty() { None } else { Some(Value::default()) })
    }

    /// Analyzes the script that a nested shell runs. The script is the argument of `-c`, the content of a
    /// file, or the standard input.
    fn shell(&mut self, name: &str, args: &[Value]) -> Analysis<Value> {
        let command = command_line(&Value::known(name), args);
        let (mut at, mut is_script, mut is_stdin) = (0, false, false);
        while let Some(arg) = args.get(at)
            && arg.text.starts_with(['-', '+'])
            && arg.text.len() > 1
        {
            at += 1;
            if arg.text == "--" {
                break;
            }
            is_script |= has_short_option(&arg.text, 'c');
            is_stdin |= has_short_option(&arg.text, 's');
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
                self.reject_unresolved(script, name, args)?;
                let positional = rest.get(1..).unwrap_or_default().to_vec();
                let outer = self.positional.replace(positional);
                let output = self.run_text(script, &command)?;
                self.positional = outer;
                Ok(output)
            }
            [file, rest @ ..] if !is_stdin => {
                let outer = self.positional.replace(rest.to_vec());
                let output = self.run_file(file, &command)?;
                self.positional = outer;
                Ok(output)
            }
            _ => {
                let outer = self.positional.replace(operands.to_vec());
                let input = std::mem::take(&mut self.input);
                let output = self.run_text(&input, &command)?;
                self.input = input;
                self.positional = outer;
                Ok(output)
            }
        }
    }

    /// Analyzes a file that is run as a script. Unknown parts of its content are not analyzed.
    fn run_file(&mut self, file: &Value, command: &str) -> Analysis<Value> {
        let script = self.read(file);
        let input =
            if *self.input == script { std::mem::take(&mut self.input) } else { Rc::clone(&self.input) };
        let output = self.run_text(&script, command)?;
        self.input = input;
        Ok(output)
    }

    /// Returns a risk if a script is entirely unknown. A script that was printed by a program whose output
    /// is meant to be evaluated, for example `ssh-agent`, is accepted.
    fn reject_unresolved(&self, script: &Value, name: &str, args: &[Value]) -> Analysis<()> {
        let is_unresolved = script.is_unknown() && !script.origin.setup;
        if is_unresolved && !script.origin.network && !script.origin.decoded {
            let effect = "it runs a script whose content is not known in advance";
            return Err(Risk::new("unresolved_code", effect, &command_line(&Value::known(name), args)));
        }
        Ok(())
    }

    fn set(&mut self, args: &[Value]) {
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

    fn declare(&mut self, args: &[Value]) {
        for arg in args {
            if let Some((name, value)) = arg.text.split_once('=') {
                self.assign(name, Value { text: value.to_owned(), origin: arg.origin });
            }
        }
    }

    /// Assigns the standard input to the variables of a `read` command. In a loop, `read` may return any
    /// line, so every line is a possible value.
    fn read_variables(&mut self, name: &str, args: &[Value]) {
        let input = Rc::clone(&self.input);
        let names = args.iter().filter(|arg| !arg.text.starts_with('-')).map(|arg| arg.text.clone());
        let mut names: Vec<String> = names.collect();
        if names.is_empty() {
            names.push("REPLY".to_owned());
        }
        let outer = std::mem::replace(&mut self.may_be_skipped, true);
        let last = names.len() - 1;
        for line in input.text.lines() {
            let text = if name == "read" { line } else { input.text.as_str() };
            let mut words = text.splitn(names.len(), char::is_whitespace);
            for (at, name) in names.iter().enumerate() {
                let text = words.next().unwrap_or_default();
                let text = if at == last { text.trim() } else { text };
                self.assign(name, Value { text: text.to_owned(), origin: input.origin });
            }
            if name != "read" {
                break;
            }
        }
        self.may_be_skipped = outer;
    }
}

/// Returns the text that `echo` or `printf` prints.
pub(super) fn printed_output(name: &str, args: &[Value]) -> Value {
    let mut output = Value::default();
    if name == "echo" {
        let is_option = |arg: &&Value| {
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
        output.origin = values.iter().fold(format.origin, |origin, value| origin.union(value.origin));
        output.text = format_printf(&format.text, values);
    }
    // A person cannot read text that is written in numeric escapes, so the output counts as decoded.
    output.origin.decoded |= args.iter().any(|arg| escapes::has_numeric_escapes(&arg.text));
    output.text = escapes::unescape(&output.text);
    output
}

/// Formats values as `printf` does. If there are more values than the format has directives, the format is
/// used again.
fn format_printf(format: &str, values: &[Value]) -> String {
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
