//! One command with its words: which program it is, and what judges it.

use super::Danger;
use super::glob;
use super::judge::{Judge, Text, UNKNOWN, Verdict};
use super::rules::{self, Act};

/// Programs that a name with a pattern or an unknown part may be.
const KNOWN: &[&str] = &[
    "rm",
    "find",
    "sh",
    "bash",
    "dash",
    "zsh",
    "python3",
    "perl",
    "ruby",
    "node",
    "php",
    "env",
    "sudo",
    "xargs",
    "busybox",
    "timeout",
    "nohup",
    "dd",
    "shred",
    "wipefs",
    "mkfs",
    "mkfs.ext2",
    "mkfs.ext3",
    "mkfs.ext4",
    "mkfs.xfs",
    "mkfs.btrfs",
    "mkfs.vfat",
    "mke2fs",
    "mkswap",
    "rsync",
    "scp",
    "parallel",
    "pkill",
    "unlink",
    "rimraf",
    "ssh",
    "awk",
    "lua",
    "chmod",
    "chown",
    "kill",
    "curl",
    "wget",
    "nc",
    "ncat",
    "socat",
    "git",
    "psql",
    "mysql",
    "sqlite3",
    "terraform",
    "kubectl",
    "helm",
    "aws",
    "gcloud",
    "az",
    "gh",
    "npm",
    "cargo",
    "twine",
    "docker",
    "eval",
    "source",
    "exec",
    "command",
];

/// What it takes to hold a command against all rules, besides reading it.
const COMMAND_STEPS: usize = 32;

impl Judge {
    /// Judges a program and its arguments; what it prints.
    pub(super) fn command(&mut self, argv: &[Text]) -> Verdict<Text> {
        let [first, args @ ..] = argv else { return Ok(Text::default()) };
        self.budget.charge(argv.iter().map(|word| word.text.len()).sum::<usize>() + COMMAND_STEPS)?;
        self.budget.enter()?;
        let output = self.dispatch(first, args)?;
        self.budget.leave();
        Ok(output)
    }

    fn dispatch(&mut self, first: &Text, args: &[Text]) -> Verdict<Text> {
        if first.text.contains(UNKNOWN) {
            refuse_origin(first, &shown(first, args))?;
        }
        if first.is_unknown() {
            // It may be nothing, or it may be the one program that does the most harm with such words.
            self.program("rm", args)?;
            self.command(args)?;
            return Ok(Text::unknown(first.origin));
        }
        if let Some(text) = self.aliases.remove(&first.text) {
            let quoted = args.iter().fold(text, |text, arg| text + " " + &quoted(&arg.text));
            return self.script(&quoted);
        }
        if self.functions.contains_key(&first.text) {
            return self.call(&first.text, args);
        }
        if first.text.contains('/') && self.written.contains_key(&self.resolve(&first.text)) {
            let script = self.read(first);
            self.run_text(&script, &shown(first, args))?;
        }
        let mut output = Text::default();
        for name in candidates(&first.text) {
            output = self.program(&name, args)?;
        }
        Ok(output)
    }

    fn program(&mut self, name: &str, args: &[Text]) -> Verdict<Text> {
        let here = self.here();
        if rules::reads_input(name) {
            self.budget.charge(self.input.text.len())?;
        }
        rules::judge(&Act { name, args, here: &here, input: &self.input })?;
        if let Some(output) = self.wrapper(name, args)? {
            return Ok(output);
        }
        if let Some(output) = self.builtin(name, args)? {
            return Ok(output);
        }
        self.interpreter(name, args)?;
        self.output(name, args)
    }

    /// Judges a text that is run as a script of the shell.
    pub(super) fn run_text(&mut self, text: &Text, shown: &str) -> Verdict<Text> {
        if text.text.contains(UNKNOWN) {
            refuse_origin(text, shown)?;
        }
        let output = self.script(&text.text)?;
        refuse_origin(text, shown)?;
        Ok(output)
    }
}

/// Refuses to run what was fetched or decoded just now.
pub(super) fn refuse_origin(text: &Text, shown: &str) -> Verdict<()> {
    if text.origin.network {
        let what = "it runs a program that it fetches from the network, unread";
        return Err(Danger::new("fetched_code", what, shown));
    }
    if text.origin.decoded {
        return Err(Danger::new("decoded_code", "it decodes a program and runs it, unread", shown));
    }
    Ok(())
}

/// A command as it came out, for a person.
pub(super) fn shown(first: &Text, args: &[Text]) -> String {
    args.iter().fold(first.text.clone(), |text, arg| text + " " + &arg.text)
}

/// The programs that a command's first word may mean, without their directories.
fn candidates(word: &str) -> Vec<String> {
    let name = word.rsplit('/').next().unwrap_or(word);
    let pattern = name.replace(UNKNOWN, "*");
    if !glob::is_pattern(&pattern) {
        return vec![pattern];
    }
    let known = KNOWN.iter().copied().chain(rules::names());
    let mut found: Vec<String> =
        known.filter(|known| glob::matches(&pattern, known)).map(str::to_owned).collect();
    if found.is_empty() {
        found.push(pattern);
    }
    found
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
