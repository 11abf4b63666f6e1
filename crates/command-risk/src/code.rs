//! Analyzes code in languages other than shell, for example Python. The code is not parsed. The analyzer
//! searches it for calls that download, decode or run something, and for string literals that may be run as
//! commands.

use super::Risk;
use super::analyzer::{Analysis, Analyzer, Value};
use super::program::{command_line, reject_untrusted};
use super::wrappers::has_short_option;
use super::{files, parse_word};

/// For each interpreter, the arguments that precede code on its command line, as in `python -c CODE`: first
/// the letters of short options, then long options and subcommands.
const LANGUAGES: &[(&str, &[char], &[&str])] = &[
    ("python", &['c'], &[]),
    ("pypy", &['c'], &[]),
    ("perl", &['e', 'E'], &[]),
    ("ruby", &['e'], &[]),
    ("node", &['e', 'p'], &["--eval", "--print"]),
    ("nodejs", &['e', 'p'], &["--eval", "--print"]),
    ("bun", &['e'], &["--eval"]),
    ("deno", &[], &["eval"]),
    ("php", &['r'], &["--run"]),
    ("lua", &['e'], &[]),
];
/// Calls that evaluate a string as code of the same language.
const EVAL_CALLS: &[&str] =
    &["exec(", "eval(", "eval ", "new Function(", "Function(", "instance_eval(", "assert(", "load("];
/// Names of functions and modules that start processes.
const PROCESS_CALLS: &[&str] = &[
    "system",
    "popen",
    "subprocess",
    "spawn",
    "exec",
    "__import__",
    "importlib",
    "child_process",
    "qx",
    "Open3",
    "proc_open",
    "passthru",
    "os.execute",
    "io.popen",
];
const DOWNLOAD_CALLS: &[&str] = &[
    "urlopen",
    "urlretrieve",
    "requests.get",
    "requests.post",
    "httpx.",
    "http.client",
    "fetch(",
    "https.get",
    "http.get",
    "LWP::",
    "Net::HTTP",
    "open-uri",
    "URI.open",
    "file_get_contents('http",
    "file_get_contents(\"http",
    "curl_exec",
    "HTTP::Tiny",
    "aiohttp",
];
const DECODE_CALLS: &[&str] = &[
    "b64decode",
    "b32decode",
    "b16decode",
    "a85decode",
    "fromhex",
    "unhexlify",
    "zlib.decompress",
    "marshal.loads",
    "codecs.decode",
    "decodebytes",
    "decode_base64",
    "Base64.decode",
    "Base64.strict_decode",
    "base64_decode",
    "atob(",
    "'base64'",
    "\"base64\"",
    "'hex'",
    "\"hex\"",
    "unpack(",
    "gzinflate",
    "str_rot13",
    "fromCharCode",
    "chr(",
    "pickle.loads",
];
const SOCKET_CALLS: &[&str] = &[
    "socket",
    "TCPSocket",
    "fsockopen",
    "net.connect",
    "net.Socket",
    "createConnection",
    "IO::Socket",
    "Socket;",
];
const SHELL_WORDS: &[&str] =
    &["dup2(", "pty.spawn", "/bin/sh", "/bin/bash", "proc_open", "\"sh\"", "'sh'", "cmd.exe", "sh -i", ">&S"];
const UPLOAD_CALLS: &[&str] = &[
    "requests.post",
    "requests.put",
    "urlopen",
    "httpx.post",
    "fetch(",
    "http.client",
    "https.request",
    "axios",
];
const READ_CALLS: &[&str] =
    &["open(", "readFileSync(", "readFile(", "Path(", "File.read(", "file_get_contents("];
const DELETE_CALLS: &[&str] =
    &["rmtree(", "rmSync(", "rmdirSync(", "rm_rf(", "rm_r(", "remove_entry(", "remove_tree(", "rimraf("];

impl Analyzer {
    /// Analyzes the code that an interpreter runs. The code is an argument, the content of a file, or the
    /// standard input.
    pub(super) fn interpreter(&mut self, name: &str, args: &[Value]) -> Analysis<()> {
        let all = command_line(&Value::known(name), args);
        if matches!(name, "awk" | "gawk" | "mawk" | "nawk") {
            return args.iter().try_for_each(|arg| self.code(arg, &all));
        }
        let language = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
        let Some((_, letters, long)) = LANGUAGES.iter().find(|(known, ..)| *known == language) else {
            return Ok(());
        };
        let mut has_code = false;
        for (at, arg) in args.iter().enumerate() {
            let text = arg.text.as_str();
            let letter = letters.iter().find(|letter| has_short_option(text, **letter));
            if text == "-m" || (at > 0 && !text.starts_with('-') && !has_code) {
                break;
            }
            let attached = letter.and_then(|letter| text.split_once(*letter)).map(|(_, rest)| rest);
            if let Some(attached) = attached.filter(|rest| rest.contains(|c: char| !c.is_ascii_alphabetic()))
            {
                self.code(&Value { text: attached.to_owned(), origin: arg.origin }, &all)?;
                has_code = true;
            } else if letter.is_some() || long.contains(&text) {
                if let Some(code) = args.get(at + 1) {
                    self.code(code, &all)?;
                }
                has_code = true;
            }
        }
        if has_code || args.iter().any(|arg| arg.text == "-m") {
            return Ok(());
        }
        let file = args.iter().find(|arg| !arg.text.starts_with('-') || arg.text == "-");
        let prints_info =
            args.iter().any(|arg| matches!(arg.text.as_str(), "--version" | "-V" | "-v" | "--help"));
        if prints_info {
            return Ok(());
        }
        let source = file.map_or_else(|| (*self.input).clone(), |file| self.read(file));
        self.code(&source, &all)
    }

    fn code(&mut self, code: &Value, command: &str) -> Analysis<()> {
        reject_untrusted(code, command)?;
        self.budget.charge(code.text.len().saturating_mul(8))?;
        let text = code.text.as_str();
        let evaluates = EVAL_CALLS.iter().any(|word| contains_identifier(text, word));
        let process_arguments = arguments(
            text,
            &["system(", "popen(", "execSync(", "check_output(", "subprocess.run(", "spawn("],
        );
        let runs_result_of = |words: &[&str]| {
            (evaluates && contains_any(text, words))
                || process_arguments.iter().any(|argument| contains_any(argument, words))
        };
        if runs_result_of(DOWNLOAD_CALLS) {
            let effect = "it runs code that it downloads, without review";
            return Err(Risk::new("fetched_code", effect, command));
        }
        if runs_result_of(DECODE_CALLS) {
            return Err(Risk::new("decoded_code", "it decodes code and runs it, without review", command));
        }
        if contains_any(text, SOCKET_CALLS) && contains_any(text, SHELL_WORDS) {
            return Err(Risk::new("reverse_shell", "it opens a shell for another machine", command));
        }
        let environment =
            ["dict(os.environ)", "str(os.environ)", "=os.environ)", "JSON.stringify(process.env)"];
        let read = arguments(text, READ_CALLS);
        let reads_secret =
            read.iter().any(|path| string_literals(path).iter().any(|path| files::holds_credentials(path)));
        if contains_any(text, UPLOAD_CALLS) && (reads_secret || contains_any(text, &environment)) {
            return Err(Risk::new("upload_secrets", "it uploads credentials", command));
        }
        for argument in arguments(text, DELETE_CALLS) {
            if let Some(description) = string_literals(argument).first().and_then(|path| self.broad(path)) {
                return Err(Risk::new("recursive_delete", &format!("it deletes {description}"), command));
            }
        }
        let loops = contains_any(text, &["while", "for", "loop"]);
        if loops
            && (contains_any(text, &["os.fork()", "fork while", "fork()"]) || text.contains("fork until"))
        {
            return Err(Risk::new("fork_bomb", "it starts copies of itself without limit", command));
        }
        if contains_any(text, PROCESS_CALLS) || text.contains('`') {
            self.process_arguments(text)
        } else {
            Ok(())
        }
    }

    /// Analyzes the string literals that the code may run as commands. Each literal is analyzed as a script.
    /// The literals within each pair of square brackets are also analyzed together, as the words of one
    /// command.
    fn process_arguments(&mut self, code: &str) -> Analysis<()> {
        let literals = string_literals(code);
        for literal in &literals {
            self.script(literal)?;
        }
        for list in arguments(code, &["["]) {
            self.budget.charge(list.len())?;
            let words: Vec<Value> = string_literals(list).into_iter().map(Value::known).collect();
            self.command(&words)?;
        }
        // The code may build a command by concatenation, as in `'r' + 'm'`, so the concatenation of all
        // literals is analyzed too.
        if code.contains("' + '")
            || code.contains("'+'")
            || code.contains("\"+\"")
            || code.contains("\" + \"")
        {
            self.script(&literals.concat())?;
        }
        Ok(())
    }
}

fn contains_any(text: &str, words: &[&str]) -> bool {
    words.iter().any(|word| text.contains(word))
}

/// Returns true if `word` occurs in the text without a letter, a digit, `_` or `.` directly before it. For
/// example, `eval(` is not found in `literal_eval(`, and `exec(` is not found in `cursor.exec(`.
fn contains_identifier(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text.get(..at).and_then(|before| before.chars().next_back());
        before.is_none_or(|c| c != '.' && !parse_word::is_name(c))
    })
}

/// For each occurrence of one of `words`, for example `popen(`, returns the text between its opening bracket
/// and the matching closing bracket.
fn arguments<'a>(text: &'a str, words: &[&str]) -> Vec<&'a str> {
    let mut matches = Vec::new();
    for word in words {
        for (at, _) in text.match_indices(word) {
            let Some(rest) = text.get(at + word.len()..) else { continue };
            let mut depth = 1_usize;
            let end = rest.bytes().take(MAX_ARGUMENT_BYTES).position(|b| {
                match b {
                    b'(' | b'[' => depth += 1,
                    b')' | b']' => depth -= 1,
                    _ => {}
                }
                depth == 0
            });
            let end = end.unwrap_or_else(|| rest.floor_char_boundary(MAX_ARGUMENT_BYTES));
            matches.extend(rest.get(..end));
        }
    }
    matches
}

/// The maximum length of one call's arguments, in bytes. [`arguments`] truncates longer ones.
const MAX_ARGUMENT_BYTES: usize = 512;

/// Returns all string literals in the code, without quotes and with escapes decoded.
fn string_literals(code: &str) -> Vec<String> {
    let mut matches = Vec::new();
    let mut chars = code.chars();
    while let Some(c) = chars.next() {
        if !matches!(c, '\'' | '"' | '`') {
            continue;
        }
        let mut text = String::new();
        while let Some(next) = chars.next() {
            match next {
                '\\' => text.extend(['\\'].into_iter().chain(chars.next())),
                next if next == c => break,
                next => text.push(next),
            }
        }
        matches.push(super::escapes::unescape(&text));
    }
    matches
}
