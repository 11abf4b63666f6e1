//! One-line programs in other languages. They are not parsed: what is looked for are the few words that make
//! one fetch, decode or run something, and the texts in quotes that it may run.

use super::Danger;
use super::judge::{Judge, Text, Verdict};
use super::program::{refuse_origin, shown};
use super::wrappers::is_cluster;
use super::{files, words};

/// Interpreters, the letters before their code, and the words that do the same.
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
/// What runs a text as a program of the same language.
const EVALUATES: &[&str] =
    &["exec(", "eval(", "eval ", "new Function(", "Function(", "instance_eval(", "assert(", "load("];
/// What runs a text as a program of the system.
const STARTS: &[&str] = &[
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
const FETCHES: &[&str] = &[
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
const DECODES: &[&str] = &[
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
const CONNECTS: &[&str] = &[
    "socket",
    "TCPSocket",
    "fsockopen",
    "net.connect",
    "net.Socket",
    "createConnection",
    "IO::Socket",
    "Socket;",
];
const SHELLS: &[&str] =
    &["dup2(", "pty.spawn", "/bin/sh", "/bin/bash", "proc_open", "\"sh\"", "'sh'", "cmd.exe", "sh -i", ">&S"];
const SENDS: &[&str] = &[
    "requests.post",
    "requests.put",
    "urlopen",
    "httpx.post",
    "fetch(",
    "http.client",
    "https.request",
    "axios",
];
const READS: &[&str] = &["open(", "readFileSync(", "readFile(", "Path(", "File.read(", "file_get_contents("];
const REMOVES: &[&str] =
    &["rmtree(", "rmSync(", "rmdirSync(", "rm_rf(", "rm_r(", "remove_entry(", "remove_tree(", "rimraf("];

impl Judge {
    /// Judges the code that an interpreter is given, on its command line, in a file or as its input.
    pub(super) fn interpreter(&mut self, name: &str, args: &[Text]) -> Verdict<()> {
        let all = shown(&Text::known(name), args);
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
            let letter = letters.iter().find(|letter| is_cluster(text, **letter));
            if text == "-m" || (at > 0 && !text.starts_with('-') && !has_code) {
                break;
            }
            let attached = letter.and_then(|letter| text.split_once(*letter)).map(|(_, rest)| rest);
            if let Some(attached) = attached.filter(|rest| rest.contains(|c: char| !c.is_ascii_alphabetic()))
            {
                self.code(&Text { text: attached.to_owned(), origin: arg.origin }, &all)?;
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
        let is_question =
            args.iter().any(|arg| matches!(arg.text.as_str(), "--version" | "-V" | "-v" | "--help"));
        if is_question {
            return Ok(());
        }
        let source = file.map_or_else(|| (*self.input).clone(), |file| self.read(file));
        self.code(&source, &all)
    }

    fn code(&mut self, code: &Text, shown: &str) -> Verdict<()> {
        refuse_origin(code, shown)?;
        self.budget.charge(code.text.len().saturating_mul(8))?;
        let text = code.text.as_str();
        let evaluates = EVALUATES.iter().any(|word| stands_alone(text, word));
        let started = arguments(
            text,
            &["system(", "popen(", "execSync(", "check_output(", "subprocess.run(", "spawn("],
        );
        let holds = |words: &[&str]| {
            (evaluates && any(text, words)) || started.iter().any(|argument| any(argument, words))
        };
        if holds(FETCHES) {
            let what = "it runs a program that it fetches from the network, unread";
            return Err(Danger::new("fetched_code", what, shown));
        }
        if holds(DECODES) {
            return Err(Danger::new("decoded_code", "it decodes a program and runs it, unread", shown));
        }
        if any(text, CONNECTS) && any(text, SHELLS) {
            return Err(Danger::new("reverse_shell", "it opens a shell to somewhere else", shown));
        }
        let environment =
            ["dict(os.environ)", "str(os.environ)", "=os.environ)", "JSON.stringify(process.env)"];
        let read = arguments(text, READS);
        let reads_secret =
            read.iter().any(|path| literals(path).iter().any(|path| files::holds_credentials(path)));
        if any(text, SENDS) && (reads_secret || any(text, &environment)) {
            return Err(Danger::new("upload_secrets", "it sends credentials away", shown));
        }
        for argument in arguments(text, REMOVES) {
            if let Some(what) = literals(argument).first().and_then(|path| self.broad(path)) {
                return Err(Danger::new("recursive_delete", &format!("it deletes {what}"), shown));
            }
        }
        let loops = any(text, &["while", "for", "loop"]);
        if loops && (any(text, &["os.fork()", "fork while", "fork()"]) || text.contains("fork until")) {
            return Err(Danger::new("fork_bomb", "it starts copies of itself without end", shown));
        }
        if any(text, STARTS) || text.contains('`') { self.started(text) } else { Ok(()) }
    }

    /// Judges the texts in quotes that a program could give to the system, one by one and as a list of words.
    fn started(&mut self, code: &str) -> Verdict<()> {
        let literals = literals(code);
        for literal in &literals {
            self.script(literal)?;
        }
        for list in arguments(code, &["["]) {
            self.budget.charge(list.len())?;
            let words: Vec<Text> = self::literals(list).into_iter().map(Text::known).collect();
            self.command(&words)?;
        }
        // Words that are put together, as in 'r' + 'm'.
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

fn any(text: &str, words: &[&str]) -> bool {
    words.iter().any(|word| text.contains(word))
}

/// Whether a word occurs as a name of its own: `exec(`, not `cursor.exec(` or `literal_eval(`.
fn stands_alone(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text.get(..at).and_then(|before| before.chars().next_back());
        before.is_none_or(|c| c != '.' && !words::is_name(c))
    })
}

/// What stands behind each of these words, up to the bracket that closes it.
fn arguments<'a>(text: &'a str, words: &[&str]) -> Vec<&'a str> {
    let mut found = Vec::new();
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
            found.extend(rest.get(..end));
        }
    }
    found
}

/// Bytes of an argument that are looked at for its end.
const MAX_ARGUMENT_BYTES: usize = 512;

/// The texts in quotes of a program, without their quotes.
fn literals(code: &str) -> Vec<String> {
    let mut found = Vec::new();
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
        found.push(super::escapes::unescape(&text));
    }
    found
}
