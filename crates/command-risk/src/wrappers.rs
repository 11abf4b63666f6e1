//! Programs that run another program, for example `sudo` or `xargs`. The analyzer checks the program that
//! they run, called the inner program here.

use super::analyzer::{Analysis, Analyzer, Origin, Value};
use super::program::command_line;

/// The maximum number of words from the standard input that are analyzed one by one, for a program such as
/// `xargs` that runs a command for each word. One unknown word stands for the remaining words.
const MAX_INPUT_WORDS: usize = 64;

struct Wrapper {
    name: &'static str,
    /// The letters of the short options that take a value.
    short: &'static str,
    /// The names of the long options that take a value.
    long: &'static [&'static str],
    /// The number of operands before the program to be run, for example one in `timeout 5 ls`.
    skip: usize,
}

const fn wrapper(
    name: &'static str,
    short: &'static str,
    long: &'static [&'static str],
    skip: usize,
) -> Wrapper {
    Wrapper { name, short, long, skip }
}

const WRAPPERS: &[Wrapper] = &[
    wrapper(
        "sudo",
        "ugpCTrtUDRh",
        &["user", "group", "prompt", "host", "chdir", "chroot", "role", "type"],
        0,
    ),
    wrapper("doas", "uC", &[], 0),
    wrapper("nohup", "", &[], 0),
    wrapper("timeout", "ks", &["kill-after", "signal"], 1),
    wrapper("gtimeout", "ks", &["kill-after", "signal"], 1),
    wrapper("nice", "n", &["adjustment"], 0),
    wrapper("ionice", "cn", &["class", "classdata"], 0),
    wrapper("chrt", "", &[], 1),
    wrapper("taskset", "", &[], 1),
    wrapper("setsid", "", &[], 0),
    wrapper("stdbuf", "ioe", &["input", "output", "error"], 0),
    wrapper("unbuffer", "", &[], 0),
    wrapper("time", "fo", &["format", "output"], 0),
    wrapper("exec", "a", &[], 0),
    wrapper("builtin", "", &[], 0),
    wrapper("busybox", "", &[], 0),
    wrapper("toybox", "", &[], 0),
    wrapper("strace", "eopsPEuaIOS", &[], 0),
    wrapper("ltrace", "eopsnuaA", &[], 0),
    wrapper("catchsegv", "", &[], 0),
    wrapper("xvfb-run", "nsefpw", &["server-args", "server-num"], 0),
    wrapper("unshare", "SGRw", &["setuid", "setgid", "root", "wd"], 0),
    wrapper("chroot", "", &[], 1),
    wrapper("setpriv", "", &["reuid", "regid", "groups"], 0),
    wrapper("prlimit", "", &[], 0),
    wrapper("systemd-run", "pu", &["unit", "property"], 0),
    wrapper("npx", "p", &["package"], 0),
    wrapper("bunx", "", &[], 0),
    wrapper("uvx", "", &["from", "with"], 0),
];
/// Subcommands that run another program, for example `npm exec`. Each entry lists the program and its
/// subcommand.
const RUNNERS: &[(&str, &str)] = &[
    ("uv", "run"),
    ("poetry", "run"),
    ("pipenv", "run"),
    ("pdm", "run"),
    ("hatch", "run"),
    ("conda", "run"),
    ("mamba", "run"),
    ("bundle", "exec"),
    ("npm", "exec"),
    ("pnpm", "exec"),
    ("yarn", "exec"),
    ("pnpm", "dlx"),
    ("mise", "exec"),
    ("dotenv", "run"),
];
/// Filter options of `find`, which `find` calls tests. With one of them, `find` does not return everything in
/// the directory.
const NARROWING: &[&str] = &[
    "-name",
    "-iname",
    "-path",
    "-ipath",
    "-wholename",
    "-regex",
    "-iregex",
    "-newer",
    "-mtime",
    "-mmin",
    "-ctime",
    "-cmin",
    "-atime",
    "-amin",
    "-size",
    "-empty",
    "-user",
    "-group",
    "-perm",
    "-inum",
    "-lname",
    "-samefile",
];

impl Analyzer {
    /// If `name` is a program that runs another program, analyzes that inner program and returns its output.
    /// Otherwise returns `None`.
    pub(super) fn wrapper(&mut self, name: &str, args: &[Value]) -> Analysis<Option<Value>> {
        if let Some(wrapper) = WRAPPERS.iter().find(|wrapper| wrapper.name == name) {
            let rest = after_options(args, wrapper.short, wrapper.long);
            let rest = rest.get(wrapper.skip..).unwrap_or_default();
            if !rest.is_empty() {
                return self.command_after_assignments(rest).map(Some);
            }
        }
        if let [first, rest @ ..] = args
            && RUNNERS.contains(&(name, first.text.as_str()))
        {
            return self.command(after_options(rest, "np", &["name", "prefix", "with", "package"])).map(Some);
        }
        Ok(match name {
            "command" => match args {
                [option, ..] if option.text.starts_with("-v") || option.text.starts_with("-V") => None,
                _ => Some(self.command(after_options(args, "", &[]))?),
            },
            "env" => self.env(args)?,
            "xargs" => Some(self.xargs(args)?),
            "parallel" => Some(self.parallel(args)?),
            "find" | "fd" | "fdfind" => self.find(args)?,
            "watch" => Some(self.run_joined(after_options(args, "nq", &["interval"]), name)?),
            "ssh" => {
                let rest = after_options(args, "bcDEeFIiJLlmOopQRSWw", &[]).get(1..).unwrap_or_default();
                let output = self.run_joined(rest, name)?;
                let network = Origin { network: true, ..output.origin };
                Some(Value::unknown(network))
            }
            "su" | "runuser" | "script" | "flock" => self.shell_wrapper(args)?,
            _ => None,
        })
    }

    /// Skips leading variable assignments, as in `sudo A=b command`, and analyzes the command that follows
    /// them.
    fn command_after_assignments(&mut self, args: &[Value]) -> Analysis<Value> {
        let is_assignment = |arg: &&Value| {
            arg.text.split_once('=').is_some_and(|(name, _)| name.chars().all(super::parse_word::is_name))
        };
        let count = args.iter().take_while(is_assignment).count();
        self.command(args.get(count..).unwrap_or_default())
    }

    fn env(&mut self, args: &[Value]) -> Analysis<Option<Value>> {
        let split = |arg: &Value| {
            let text = arg.text.strip_prefix("-S").or_else(|| arg.text.strip_prefix("--split-string="));
            let cluster = || arg.text.strip_prefix("-iS").or_else(|| arg.text.strip_prefix("-vS"));
            text.or_else(cluster).map(str::to_owned)
        };
        if let Some(at) = args.iter().position(|arg| split(arg).is_some() || arg.text == "--split-string") {
            let mut words: Vec<Value> = args.get(at).and_then(split).map(Value::known).into_iter().collect();
            words.extend_from_slice(args.get(at + 1..).unwrap_or_default());
            return self.run_joined(&words, "env").map(Some);
        }
        let rest = after_options(args, "uC", &["unset", "chdir"]);
        if rest.iter().all(|arg| arg.text.contains('=')) {
            return Ok(None);
        }
        self.command_after_assignments(rest).map(Some)
    }

    /// Joins the words with spaces and analyzes the result as a shell script, because programs such as
    /// `watch` and `ssh` run their arguments that way.
    fn run_joined(&mut self, words: &[Value], name: &str) -> Analysis<Value> {
        let mut script = Value::default();
        for word in words {
            script.push(word);
            script.text.push(' ');
        }
        self.run_text(&script, &command_line(&Value::known(name), words))
    }

    /// Analyzes the script that a program such as `su` runs with its option `-c`, or the command that follows
    /// its first operand.
    fn shell_wrapper(&mut self, args: &[Value]) -> Analysis<Option<Value>> {
        let at = args.iter().position(|arg| arg.text == "--command" || has_short_option(&arg.text, 'c'));
        if let Some(script) = at.and_then(|at| args.get(at + 1)) {
            return self.run_text(script, &script.text).map(Some);
        }
        let rest = after_options(args, "uwE", &["user"]);
        let rest = rest.get(1..).unwrap_or_default();
        self.command(rest).map(Some)
    }

    fn xargs(&mut self, args: &[Value]) -> Analysis<Value> {
        let inner =
            after_options(args, "InPLdsEa", &["max-args", "max-procs", "replace", "delimiter", "arg-file"]);
        let options = args.len() - inner.len();
        let options = args.get(..options).unwrap_or_default();
        let placeholder = options.iter().enumerate().find_map(|(at, option)| {
            match option.text.strip_prefix("-I").or_else(|| option.text.strip_prefix("--replace=")) {
                Some("") => options.get(at + 1).map(|value| value.text.clone()),
                Some(placeholder) => Some(placeholder.to_owned()),
                None => (option.text == "-i" || option.text == "--replace").then(|| "{}".to_owned()),
            }
        });
        let items = self.input_words();
        let Some(placeholder) = placeholder.filter(|placeholder| !placeholder.is_empty()) else {
            let mut argv = inner.to_vec();
            argv.extend(items);
            return self.command_on_all(argv);
        };
        let mut output = Value::default();
        for item in items {
            let argv = inner.iter().map(|arg| substitute(arg, &placeholder, &item)).collect();
            output.push(&self.command_on_all(argv)?);
        }
        Ok(output)
    }

    /// Splits the standard input into words.
    fn input_words(&self) -> Vec<Value> {
        let words = self.input.text.split([' ', '\t', '\n', '\0']).filter(|word| !word.is_empty());
        let item = |word: &str| Value { text: word.to_owned(), origin: self.input.origin };
        let mut items: Vec<Value> = words.take(MAX_INPUT_WORDS).map(item).collect();
        if items.len() == MAX_INPUT_WORDS {
            items.push(Value::unknown(self.input.origin));
        }
        items
    }

    /// Analyzes a command that `find` or `xargs` runs on paths. A directory among the paths stands for every
    /// path below it, so deleting a broad directory such as `/` counts as recursive, even without `-r`.
    fn command_on_all(&mut self, mut argv: Vec<Value>) -> Analysis<Value> {
        let removes = argv
            .first()
            .is_some_and(|first| matches!(first.text.rsplit('/').next(), Some("rm" | "unlink" | "shred")));
        if removes && argv.iter().skip(1).any(|arg| self.broad(&arg.text).is_some() && !arg.is_unknown()) {
            argv.insert(0, Value::known("rm"));
            argv.insert(1, Value::known("-r"));
        }
        self.command(&argv)
    }

    fn parallel(&mut self, args: &[Value]) -> Analysis<Value> {
        let rest = after_options(args, "jNIkSa", &["jobs"]);
        let at = rest.iter().position(|arg| arg.text.starts_with(":::")).unwrap_or(rest.len());
        let (words, operands) = (rest.get(..at).unwrap_or_default(), rest.get(at + 1..).unwrap_or_default());
        let items = if operands.is_empty() {
            self.input_words()
        } else {
            operands.iter().take(MAX_INPUT_WORDS).cloned().collect()
        };
        let mut output = Value::default();
        for item in items {
            let mut argv: Vec<Value> = words.iter().map(|word| substitute(word, "{}", &item)).collect();
            if argv == words {
                argv.push(item);
            }
            output.push(&self.run_joined(&argv, "parallel")?);
        }
        Ok(output)
    }

    /// Analyzes the commands that `find` runs on its results. Returns the results as the output of `find`.
    fn find(&mut self, args: &[Value]) -> Analysis<Option<Value>> {
        let found = find_results(args);
        let mut at = 0;
        while let Some(arg) = args.get(at) {
            at += 1;
            if !matches!(arg.text.as_str(), "-exec" | "-execdir" | "-ok" | "-okdir" | "-x" | "-X" | "--exec")
            {
                continue;
            }
            let rest = args.get(at..).unwrap_or_default();
            let length = rest.iter().position(|arg| matches!(arg.text.as_str(), ";" | "+"));
            let inner = rest.get(..length.unwrap_or(rest.len())).unwrap_or_default();
            for item in &found {
                self.command_on_all(inner.iter().map(|arg| substitute(arg, "{}", item)).collect())?;
            }
        }
        Ok(Some(Value::known(found.iter().fold(String::new(), |text, item| text + &item.text + "\n"))))
    }
}

/// Returns the paths that `find` is assumed to print: its starting directories, or one harmless path if a
/// test such as `-name` narrows the results.
pub(super) fn find_results(args: &[Value]) -> Vec<Value> {
    let options = args.iter().take_while(|arg| matches!(arg.text.as_str(), "-L" | "-H" | "-P")).count();
    let args = args.get(options..).unwrap_or_default();
    let paths = args.iter().take_while(|arg| !arg.text.starts_with(['-', '(', '!'])).count();
    let mut found: Vec<Value> = args.iter().take(paths.min(MAX_INPUT_WORDS)).cloned().collect();
    if found.is_empty() {
        found.push(Value::known("."));
    }
    let narrows = args.iter().enumerate().any(|(at, arg)| {
        let negated = at.checked_sub(1).and_then(|before| args.get(before));
        let negated = negated.is_some_and(|before| matches!(before.text.as_str(), "!" | "-not"));
        let value = args.get(at + 1).map_or("", |value| value.text.as_str());
        NARROWING.contains(&arg.text.as_str()) && !negated && value.chars().any(|c| !"*?.".contains(c))
    });
    let narrows = narrows || args.iter().any(|arg| arg.text == "-empty");
    if narrows { vec![Value::known("./found/here")] } else { found }
}

fn substitute(word: &Value, placeholder: &str, item: &Value) -> Value {
    if !word.text.contains(placeholder) {
        return word.clone();
    }
    Value { text: word.text.replace(placeholder, &item.text), origin: word.origin.union(item.origin) }
}

/// Returns true if the argument is a group of short options, such as `-rf`, that contains `letter`.
pub(super) fn has_short_option(arg: &str, letter: char) -> bool {
    arg.strip_prefix('-').is_some_and(|rest| !rest.starts_with('-') && rest.contains(letter))
}

/// Returns the arguments that follow the leading options. `short` and `long` list the options that take a
/// value.
pub(super) fn after_options<'a>(args: &'a [Value], short: &str, long: &[&str]) -> &'a [Value] {
    let mut rest = args;
    while let [first, after @ ..] = rest
        && let Some(option) = first.text.strip_prefix('-').filter(|option| !option.is_empty())
    {
        rest = after;
        let takes_next = match option.strip_prefix('-') {
            Some("") => return rest,
            Some(word) => long.contains(&word),
            None => option.find(|c| short.contains(c)).is_some_and(|at| at + 1 == option.len()),
        };
        if takes_next {
            rest = rest.get(1..).unwrap_or_default();
        }
    }
    rest
}
