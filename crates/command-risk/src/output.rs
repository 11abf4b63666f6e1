//! Models what programs print. This matters when another part of the same shell command executes or uploads
//! that output, for example in `curl … | sh`.

use super::analyzer::{Analysis, Analyzer, Origin, Value};
use super::files;
use super::shell;
use super::wrappers::has_short_option;

/// Programs that print shell code to be evaluated. Their manuals recommend `eval "$(program)"` or similar.
const SETUP_PROGRAMS: &[&str] = &[
    "ssh-agent",
    "direnv",
    "pyenv",
    "rbenv",
    "nodenv",
    "jenv",
    "goenv",
    "conda",
    "mamba",
    "micromamba",
    "fnm",
    "brew",
    "minikube",
    "opam",
    "dircolors",
    "starship",
    "zoxide",
    "mise",
    "asdf",
    "rtx",
    "register-python-argcomplete",
    "docker-machine",
    "lesspipe",
    "fzf",
    "thefuck",
    "keychain",
    "resize",
];

impl Analyzer {
    pub(super) fn output(&mut self, name: &str, args: &[Value]) -> Analysis<Value> {
        let operands: Vec<&Value> = args.iter().filter(|arg| !arg.text.starts_with('-')).collect();
        let first = operands.first().map(|operand| (*operand).clone()).unwrap_or_default();
        let default = Origin::default();
        Ok(match name {
            "echo" | "printf" => {
                let output = shell::printed_output(name, args);
                self.budget.charge(output.text.len())?;
                output
            }
            "cat" | "tac" | "head" | "tail" | "less" | "more" | "strings" | "nl" => {
                self.concatenate(name, &operands)?
            }
            "tee" => {
                let input = (*self.input).clone();
                let appends = args.iter().any(|arg| has_short_option(&arg.text, 'a'));
                for file in operands {
                    self.write(&file.text, &input, appends)?;
                }
                input
            }
            "pwd" => Value::known(self.working_dir()),
            "mktemp" => Value::known("/tmp/tmp.made"),
            "which" | "realpath" | "readlink" | "type" => first,
            "command" => operands.last().map(|operand| (*operand).clone()).unwrap_or_default(),
            "basename" => {
                Value { text: first.text.rsplit('/').next().unwrap_or_default().to_owned(), ..first }
            }
            "dirname" => match first.text.rsplit_once('/') {
                Some(("", _)) => Value::known("/"),
                Some((parent, _)) => Value { text: parent.to_owned(), ..first },
                None => Value::known("."),
            },
            "git" if args.iter().any(|arg| arg.text == "--show-toplevel") => Value::known("/workspace"),
            "seq" | "nproc" | "id" => Value::known("1"),
            "ls" => list(&operands),
            "curl" | "wget" | "http" | "https" | "xh" | "aria2c" | "lynx" | "fetch" | "nc" | "ncat"
            | "netcat" => self.download(name, args)?,
            _ if SETUP_PROGRAMS.contains(&name) => Value::unknown(Origin { setup: true, ..default }),
            "env" | "printenv" | "set" | "export" | "declare" if operands.is_empty() => {
                Value::unknown(Origin { secret: true, ..default })
            }
            "true" | "false" | ":" | "mkdir" | "touch" | "cp" | "mv" | "rm" | "chmod" | "sleep" | "exit"
            | "test" | "[" | "[[" | "shopt" | "wait" => {
                self.copy(name, &operands)?;
                Value::default()
            }
            _ => self.derived(name, args, &operands),
        })
    }

    fn concatenate(&mut self, name: &str, operands: &[&Value]) -> Analysis<Value> {
        let files: Vec<&Value> = operands
            .iter()
            .copied()
            .filter(|file| name == "cat" || !file.text.chars().all(|c| c.is_ascii_digit() || c == '+'))
            .collect();
        if files.is_empty() {
            return Ok((*self.input).clone());
        }
        let mut output = Value::default();
        for file in files {
            let text = self.read(file);
            self.budget.charge(text.text.len())?;
            output.push(&text);
        }
        Ok(output)
    }

    /// If the program is `cp` or `mv` and the content of the source file is known, records that the
    /// destination file has the same content.
    fn copy(&mut self, name: &str, operands: &[&Value]) -> Analysis<()> {
        if let ("cp" | "mv", [from, to]) = (name, operands)
            && self.written.contains_key(&self.resolve(&from.text))
        {
            let text = self.read(from);
            self.write(&to.text, &text, false)?;
        }
        Ok(())
    }

    /// Models a download. The downloaded text becomes the program's output, or the content of the file to
    /// which the program saves it.
    fn download(&mut self, name: &str, args: &[Value]) -> Analysis<Value> {
        let body = Value::unknown(Origin { network: true, ..Origin::default() });
        let url = args.iter().find(|arg| arg.text.contains("://")).cloned().unwrap_or_default();
        let path = url.text.split(['?', '#']).next().unwrap_or_default();
        let remote = path.rsplit('/').next().unwrap_or_default().to_owned();
        let mut file = None;
        for (at, arg) in args.iter().enumerate() {
            let next = || args.get(at + 1).map(|next| next.text.clone());
            let long =
                ["--output=", "--output-document="].iter().find_map(|name| arg.text.strip_prefix(name));
            match (name, arg.text.as_str()) {
                ("curl", "--output") | ("wget", "--output-document") => file = next(),
                ("curl", "--remote-name") => file = Some(remote.clone()),
                (_, _) if long.is_some() => file = long.map(str::to_owned),
                ("curl", text) if has_short_option(text, 'O') => file = Some(remote.clone()),
                ("curl", text) if has_short_option(text, 'o') => {
                    file = text
                        .split_once('o')
                        .map(|(_, rest)| rest.to_owned())
                        .filter(|rest| !rest.is_empty())
                        .or_else(next);
                }
                ("wget", text) if has_short_option(text, 'O') => {
                    file = text
                        .split_once('O')
                        .map(|(_, rest)| rest.to_owned())
                        .filter(|rest| !rest.is_empty())
                        .or_else(next);
                }
                _ => {}
            }
        }
        if name == "wget" && file.is_none() {
            file = Some(remote);
        }
        match file.as_deref() {
            None | Some("-" | "/dev/stdout" | "") => Ok(body),
            Some(file) => {
                self.write(file, &body, false)?;
                Ok(Value::default())
            }
        }
    }

    /// Returns the output of a program that the analyzer does not simulate. Its text is unknown. Its origin
    /// combines the origins of the program's input and operands.
    fn derived(&self, name: &str, args: &[Value], operands: &[&Value]) -> Value {
        let mut origin = self.input.origin;
        origin.decoded |= decodes(name, args);
        // If the input is fully known and the program's output is not, the program may have decoded the
        // input, so the output counts as decoded.
        let has_unknown = super::expand::is_partly_unknown(&self.input.text);
        origin.decoded |= !self.input.text.trim().is_empty() && !has_unknown;
        let packs = matches!(name, "tar" | "zip" | "7z" | "cpio" | "bsdtar");
        for operand in operands {
            let file =
                self.written.get(&self.resolve(&operand.text)).map(|file| file.origin).unwrap_or_default();
            origin.secret |= files::holds_credentials(&operand.text) || operand.origin.secret || file.secret;
            origin.network |= file.network;
            origin.decoded |= file.decoded;
            origin.secret |= packs && self.broad(&operand.text).is_some();
        }
        origin.setup = false;
        Value::unknown(origin)
    }
}

/// Returns true if the program, with these options, decodes, decrypts or decompresses its input.
fn decodes(name: &str, args: &[Value]) -> bool {
    let has = |letters: &[char], words: &[&str]| {
        args.iter().any(|arg| {
            let word = arg.text.as_str();
            words.contains(&word) || letters.iter().any(|letter| has_short_option(word, *letter))
        })
    };
    match name {
        "base64" | "base32" | "basenc" | "gbase64" => has(&['d', 'D'], &["--decode", "--dec", "--d"]),
        "xxd" => has(&['r'], &["--revert"]),
        "openssl" => has(&['d'], &[]),
        "gzip" | "bzip2" | "xz" | "zstd" | "lz4" | "brotli" | "pigz" => {
            has(&['d'], &["--decompress", "--uncompress"])
        }
        "gunzip" | "bunzip2" | "unxz" | "zcat" | "bzcat" | "xzcat" | "zstdcat" | "uudecode" | "unzip"
        | "rev" => true,
        "gpg" | "gpg2" | "age" => has(&['d'], &["--decrypt"]),
        _ => false,
    }
}

/// Returns the names that `ls` prints. The content of a directory is represented by `*`.
fn list(operands: &[&Value]) -> Value {
    let name = |operand: &&Value| {
        let text = operand.text.as_str();
        if text.contains('*') { text.to_owned() } else { format!("{}/*", text.trim_end_matches('/')) }
    };
    if operands.is_empty() {
        return Value::known("*\n");
    }
    Value::known(operands.iter().map(name).collect::<Vec<_>>().join("\n"))
}
