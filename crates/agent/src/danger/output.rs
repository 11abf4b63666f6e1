//! What programs print, as far as it matters when it is run or sent away.

use super::files;
use super::judge::{Judge, Origin, Text, Verdict};
use super::shell;
use super::wrappers::is_cluster;

/// Programs that print setup for a shell to evaluate, as their manuals say.
const SETUP: &[&str] = &[
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

impl Judge {
    pub(super) fn output(&mut self, name: &str, args: &[Text]) -> Verdict<Text> {
        let operands: Vec<&Text> = args.iter().filter(|arg| !arg.text.starts_with('-')).collect();
        let first = operands.first().map(|operand| (*operand).clone()).unwrap_or_default();
        let nothing = Origin::default();
        Ok(match name {
            "echo" | "printf" => {
                let output = shell::printed(name, args);
                self.budget.charge(output.text.len())?;
                output
            }
            "cat" | "tac" | "head" | "tail" | "less" | "more" | "strings" | "nl" => {
                self.concatenated(name, &operands)?
            }
            "tee" => {
                let input = (*self.input).clone();
                let appends = args.iter().any(|arg| is_cluster(&arg.text, 'a'));
                for file in operands {
                    self.write(&file.text, &input, appends)?;
                }
                input
            }
            "pwd" => Text::known(self.here()),
            "mktemp" => Text::known("/tmp/tmp.made"),
            "which" | "realpath" | "readlink" | "type" => first,
            "command" => operands.last().map(|operand| (*operand).clone()).unwrap_or_default(),
            "basename" => {
                Text { text: first.text.rsplit('/').next().unwrap_or_default().to_owned(), ..first }
            }
            "dirname" => match first.text.rsplit_once('/') {
                Some(("", _)) => Text::known("/"),
                Some((parent, _)) => Text { text: parent.to_owned(), ..first },
                None => Text::known("."),
            },
            "git" if args.iter().any(|arg| arg.text == "--show-toplevel") => Text::known("/workspace"),
            "seq" | "nproc" | "id" => Text::known("1"),
            "ls" => listed(&operands),
            "curl" | "wget" | "http" | "https" | "xh" | "aria2c" | "lynx" | "fetch" | "nc" | "ncat"
            | "netcat" => self.fetched(name, args)?,
            _ if SETUP.contains(&name) => Text::unknown(Origin { setup: true, ..nothing }),
            "env" | "printenv" | "set" | "export" | "declare" if operands.is_empty() => {
                Text::unknown(Origin { secret: true, ..nothing })
            }
            "true" | "false" | ":" | "mkdir" | "touch" | "cp" | "mv" | "rm" | "chmod" | "sleep" | "exit"
            | "test" | "[" | "[[" | "shopt" | "wait" => {
                self.copied(name, &operands)?;
                Text::default()
            }
            _ => self.filtered(name, args, &operands),
        })
    }

    fn concatenated(&mut self, name: &str, operands: &[&Text]) -> Verdict<Text> {
        let files: Vec<&Text> = operands
            .iter()
            .copied()
            .filter(|file| name == "cat" || !file.text.chars().all(|c| c.is_ascii_digit() || c == '+'))
            .collect();
        if files.is_empty() {
            return Ok((*self.input).clone());
        }
        let mut output = Text::default();
        for file in files {
            let text = self.read(file);
            self.budget.charge(text.text.len())?;
            output.push(&text);
        }
        Ok(output)
    }

    /// A file that is copied or moved holds what it held.
    fn copied(&mut self, name: &str, operands: &[&Text]) -> Verdict<()> {
        if let ("cp" | "mv", [from, to]) = (name, operands)
            && self.written.contains_key(&self.resolve(&from.text))
        {
            let text = self.read(from);
            self.write(&to.text, &text, false)?;
        }
        Ok(())
    }

    /// What comes from the network, to the output or to a file.
    fn fetched(&mut self, name: &str, args: &[Text]) -> Verdict<Text> {
        let body = Text::unknown(Origin { network: true, ..Origin::default() });
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
                ("curl", text) if is_cluster(text, 'O') => file = Some(remote.clone()),
                ("curl", text) if is_cluster(text, 'o') => {
                    file = text
                        .split_once('o')
                        .map(|(_, rest)| rest.to_owned())
                        .filter(|rest| !rest.is_empty())
                        .or_else(next);
                }
                ("wget", text) if is_cluster(text, 'O') => {
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
                Ok(Text::default())
            }
        }
    }

    /// What any other program makes of what it reads: nobody knows, but it comes from there.
    fn filtered(&self, name: &str, args: &[Text], operands: &[&Text]) -> Text {
        let mut origin = self.input.origin;
        origin.decoded |= decodes(name, args);
        // A text that was known, and is no more.
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
        Text::unknown(origin)
    }
}

/// Whether a program turns what nobody can read into what can be run.
fn decodes(name: &str, args: &[Text]) -> bool {
    let has = |letters: &[char], words: &[&str]| {
        args.iter().any(|arg| {
            let word = arg.text.as_str();
            words.contains(&word) || letters.iter().any(|letter| is_cluster(word, *letter))
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

/// The names that `ls` prints: those it was given, or what stands for all of a directory.
fn listed(operands: &[&Text]) -> Text {
    let name = |operand: &&Text| {
        let text = operand.text.as_str();
        if text.contains('*') { text.to_owned() } else { format!("{}/*", text.trim_end_matches('/')) }
    };
    if operands.is_empty() {
        return Text::known("*\n");
    }
    Text::known(operands.iter().map(name).collect::<Vec<_>>().join("\n"))
}
