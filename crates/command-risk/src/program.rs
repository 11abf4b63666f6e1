//! Analyzes the invocation of a program: resolves the program's name, and checks the name and the arguments
//! against the risk rules.

use super::Risk;
use super::analyzer::{Analysis, Analyzer, UNKNOWN, Value};
use super::glob;
use super::rules::{self, Invocation};

/// If the program name in a command is a pattern or partly unknown, it may refer to any of these programs. It
/// may also refer to the programs in the risk rules.
const KNOWN_PROGRAMS: &[&str] = &[
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

/// The number of steps that are charged to the budget for checking one command against all risk rules, in
/// addition to the command's length.
const COMMAND_STEPS: usize = 32;

impl Analyzer {
    /// Analyzes a command, given as a program name and arguments, without running it. Returns what is known
    /// about its output.
    pub(super) fn command(&mut self, argv: &[Value]) -> Analysis<Value> {
        let [first, args @ ..] = argv else { return Ok(Value::default()) };
        self.budget.charge(argv.iter().map(|word| word.text.len()).sum::<usize>() + COMMAND_STEPS)?;
        self.budget.enter()?;
        let output = self.dispatch(first, args)?;
        self.budget.leave();
        Ok(output)
    }

    fn dispatch(&mut self, first: &Value, args: &[Value]) -> Analysis<Value> {
        if first.text.contains(UNKNOWN) {
            reject_untrusted(first, &command_line(first, args))?;
        }
        if first.is_unknown() {
            // The program name is unknown, so two cases are analyzed. If the name is not empty, it is assumed
            // to be `rm`, which does the most harm with most arguments. If it is empty, the next word is the
            // program name.
            self.program("rm", args)?;
            self.command(args)?;
            return Ok(Value::unknown(first.origin));
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
            self.run_text(&script, &command_line(first, args))?;
        }
        let mut output = Value::default();
        for name in candidates(&first.text) {
            output = self.program(&name, args)?;
        }
        Ok(output)
    }

    fn program(&mut self, name: &str, args: &[Value]) -> Analysis<Value> {
        let working_dir = self.working_dir();
        if rules::reads_input(name) {
            self.budget.charge(self.input.text.len())?;
        }
        rules::check(&Invocation { name, args, working_dir: &working_dir, input: &self.input })?;
        if let Some(output) = self.wrapper(name, args)? {
            return Ok(output);
        }
        if let Some(output) = self.builtin(name, args)? {
            return Ok(output);
        }
        self.interpreter(name, args)?;
        self.output(name, args)
    }

    /// Analyzes a text that the command runs as a shell script, and returns the script's output. Returns a
    /// risk if the text was downloaded or decoded.
    pub(super) fn run_text(&mut self, text: &Value, command: &str) -> Analysis<Value> {
        if text.text.contains(UNKNOWN) {
            reject_untrusted(text, command)?;
        }
        let output = self.script(&text.text)?;
        reject_untrusted(text, command)?;
        Ok(output)
    }
}

/// Returns a risk if the text, which is about to be run as code, was downloaded or decoded.
pub(super) fn reject_untrusted(text: &Value, command: &str) -> Analysis<()> {
    if text.origin.network {
        let effect = "it runs code that it downloads, without review";
        return Err(Risk::new("fetched_code", effect, command));
    }
    if text.origin.decoded {
        return Err(Risk::new("decoded_code", "it decodes code and runs it, without review", command));
    }
    Ok(())
}

/// Joins an expanded command into one line, which is quoted in the reason of a risk.
pub(super) fn command_line(first: &Value, args: &[Value]) -> String {
    args.iter().fold(first.text.clone(), |text, arg| text + " " + &arg.text)
}

/// Returns the names, without directories, of all programs that the first word of a command may refer to.
fn candidates(word: &str) -> Vec<String> {
    let name = word.rsplit('/').next().unwrap_or(word);
    let pattern = name.replace(UNKNOWN, "*");
    if !glob::is_pattern(&pattern) {
        return vec![pattern];
    }
    let programs = KNOWN_PROGRAMS.iter().copied().chain(rules::names());
    let mut candidates: Vec<String> =
        programs.filter(|program| glob::matches(&pattern, program)).map(str::to_owned).collect();
    if candidates.is_empty() {
        candidates.push(pattern);
    }
    candidates
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
