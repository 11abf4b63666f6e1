//! Programs that run another program, which is judged in their place.

use super::judge::{Judge, Origin, Text, Verdict};
use super::program::shown;

/// Items of its input that are told apart by a program that runs another for each.
const MAX_ITEMS: usize = 64;

struct Wrapper {
    name: &'static str,
    /// Its letters and words that take a value.
    short: &'static str,
    long: &'static [&'static str],
    /// Words before the program.
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
/// Programs that run another one as a subcommand.
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
/// What `find` is narrowed by: with one of these it does not stand for all that its directory holds.
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

impl Judge {
    /// Judges what a program runs, if that is what it is for; what that prints.
    pub(super) fn wrapper(&mut self, name: &str, args: &[Text]) -> Verdict<Option<Text>> {
        if let Some(wrapper) = WRAPPERS.iter().find(|wrapper| wrapper.name == name) {
            let rest = after_options(args, wrapper.short, wrapper.long);
            let rest = rest.get(wrapper.skip..).unwrap_or_default();
            if !rest.is_empty() {
                return self.prefixed(rest).map(Some);
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
            "watch" => Some(self.joined_script(after_options(args, "nq", &["interval"]), name)?),
            "ssh" => {
                let rest = after_options(args, "bcDEeFIiJLlmOopQRSWw", &[]).get(1..).unwrap_or_default();
                let output = self.joined_script(rest, name)?;
                let network = Origin { network: true, ..output.origin };
                Some(Text::unknown(network))
            }
            "su" | "runuser" | "script" | "flock" => self.with_script(args)?,
            _ => None,
        })
    }

    /// A command after assignments, as `sudo` and `env` take them.
    fn prefixed(&mut self, args: &[Text]) -> Verdict<Text> {
        let is_assignment = |arg: &&Text| {
            arg.text.split_once('=').is_some_and(|(name, _)| name.chars().all(super::words::is_name))
        };
        let count = args.iter().take_while(is_assignment).count();
        self.command(args.get(count..).unwrap_or_default())
    }

    fn env(&mut self, args: &[Text]) -> Verdict<Option<Text>> {
        let split = |arg: &Text| {
            let text = arg.text.strip_prefix("-S").or_else(|| arg.text.strip_prefix("--split-string="));
            let cluster = || arg.text.strip_prefix("-iS").or_else(|| arg.text.strip_prefix("-vS"));
            text.or_else(cluster).map(str::to_owned)
        };
        if let Some(at) = args.iter().position(|arg| split(arg).is_some() || arg.text == "--split-string") {
            let mut words: Vec<Text> = args.get(at).and_then(split).map(Text::known).into_iter().collect();
            words.extend_from_slice(args.get(at + 1..).unwrap_or_default());
            return self.joined_script(&words, "env").map(Some);
        }
        let rest = after_options(args, "uC", &["unset", "chdir"]);
        if rest.iter().all(|arg| arg.text.contains('=')) {
            return Ok(None);
        }
        self.prefixed(rest).map(Some)
    }

    /// Words that a program joins and gives to a shell.
    fn joined_script(&mut self, words: &[Text], name: &str) -> Verdict<Text> {
        let mut script = Text::default();
        for word in words {
            script.push(word);
            script.text.push(' ');
        }
        self.run_text(&script, &shown(&Text::known(name), words))
    }

    /// `-c SCRIPT`, or a command behind the first operand.
    fn with_script(&mut self, args: &[Text]) -> Verdict<Option<Text>> {
        let at = args.iter().position(|arg| arg.text == "--command" || is_cluster(&arg.text, 'c'));
        if let Some(script) = at.and_then(|at| args.get(at + 1)) {
            return self.run_text(script, &script.text).map(Some);
        }
        let rest = after_options(args, "uwE", &["user"]);
        let rest = rest.get(1..).unwrap_or_default();
        self.command(rest).map(Some)
    }

    fn xargs(&mut self, args: &[Text]) -> Verdict<Text> {
        let inner =
            after_options(args, "InPLdsEa", &["max-args", "max-procs", "replace", "delimiter", "arg-file"]);
        let options = args.len() - inner.len();
        let options = args.get(..options).unwrap_or_default();
        let mark = options.iter().enumerate().find_map(|(at, option)| {
            match option.text.strip_prefix("-I").or_else(|| option.text.strip_prefix("--replace=")) {
                Some("") => options.get(at + 1).map(|value| value.text.clone()),
                Some(mark) => Some(mark.to_owned()),
                None => (option.text == "-i" || option.text == "--replace").then(|| "{}".to_owned()),
            }
        });
        let items = self.items();
        let Some(mark) = mark.filter(|mark| !mark.is_empty()) else {
            let mut argv = inner.to_vec();
            argv.extend(items);
            return self.over_everything(argv);
        };
        let mut output = Text::default();
        for item in items {
            let argv = inner.iter().map(|arg| replaced(arg, &mark, &item)).collect();
            output.push(&self.over_everything(argv)?);
        }
        Ok(output)
    }

    /// What is read from the input, word by word.
    fn items(&self) -> Vec<Text> {
        let words = self.input.text.split([' ', '\t', '\n', '\0']).filter(|word| !word.is_empty());
        let item = |word: &str| Text { text: word.to_owned(), origin: self.input.origin };
        let mut items: Vec<Text> = words.take(MAX_ITEMS).map(item).collect();
        if items.len() == MAX_ITEMS {
            items.push(Text::unknown(self.input.origin));
        }
        items
    }

    /// Judges a command that is given everything below what it names: deleting that is deleting all of it.
    fn over_everything(&mut self, mut argv: Vec<Text>) -> Verdict<Text> {
        let removes = argv
            .first()
            .is_some_and(|first| matches!(first.text.rsplit('/').next(), Some("rm" | "unlink" | "shred")));
        if removes && argv.iter().skip(1).any(|arg| self.broad(&arg.text).is_some() && !arg.is_unknown()) {
            argv.insert(0, Text::known("rm"));
            argv.insert(1, Text::known("-r"));
        }
        self.command(&argv)
    }

    fn parallel(&mut self, args: &[Text]) -> Verdict<Text> {
        let rest = after_options(args, "jNIkSa", &["jobs"]);
        let at = rest.iter().position(|arg| arg.text.starts_with(":::")).unwrap_or(rest.len());
        let (words, given) = (rest.get(..at).unwrap_or_default(), rest.get(at + 1..).unwrap_or_default());
        let items =
            if given.is_empty() { self.items() } else { given.iter().take(MAX_ITEMS).cloned().collect() };
        let mut output = Text::default();
        for item in items {
            let mut argv: Vec<Text> = words.iter().map(|word| replaced(word, "{}", &item)).collect();
            if argv == words {
                argv.push(item);
            }
            output.push(&self.joined_script(&argv, "parallel")?);
        }
        Ok(output)
    }

    /// Judges what `find` runs for what it finds; prints what that is, as far as it matters.
    fn find(&mut self, args: &[Text]) -> Verdict<Option<Text>> {
        let found = found(args);
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
                self.over_everything(inner.iter().map(|arg| replaced(arg, "{}", item)).collect())?;
            }
        }
        Ok(Some(Text::known(found.iter().fold(String::new(), |text, item| text + &item.text + "\n"))))
    }
}

/// What `find` finds: its directories, unless something narrows it down.
pub(super) fn found(args: &[Text]) -> Vec<Text> {
    let options = args.iter().take_while(|arg| matches!(arg.text.as_str(), "-L" | "-H" | "-P")).count();
    let args = args.get(options..).unwrap_or_default();
    let paths = args.iter().take_while(|arg| !arg.text.starts_with(['-', '(', '!'])).count();
    let mut found: Vec<Text> = args.iter().take(paths.min(MAX_ITEMS)).cloned().collect();
    if found.is_empty() {
        found.push(Text::known("."));
    }
    let narrows = args.iter().enumerate().any(|(at, arg)| {
        let negated = at.checked_sub(1).and_then(|before| args.get(before));
        let negated = negated.is_some_and(|before| matches!(before.text.as_str(), "!" | "-not"));
        let value = args.get(at + 1).map_or("", |value| value.text.as_str());
        NARROWING.contains(&arg.text.as_str()) && !negated && value.chars().any(|c| !"*?.".contains(c))
    });
    let narrows = narrows || args.iter().any(|arg| arg.text == "-empty");
    if narrows { vec![Text::known("./found/here")] } else { found }
}

fn replaced(word: &Text, mark: &str, item: &Text) -> Text {
    if !word.text.contains(mark) {
        return word.clone();
    }
    Text { text: word.text.replace(mark, &item.text), origin: word.origin.and(item.origin) }
}

/// Whether an argument is a cluster of one-letter options with this one in it.
pub(super) fn is_cluster(arg: &str, letter: char) -> bool {
    arg.strip_prefix('-').is_some_and(|rest| !rest.starts_with('-') && rest.contains(letter))
}

/// What follows the options of a program.
pub(super) fn after_options<'a>(args: &'a [Text], short: &str, long: &[&str]) -> &'a [Text] {
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
