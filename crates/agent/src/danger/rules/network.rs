//! What leaves through the network, and who comes in through it.

use super::super::files;
use super::super::wrappers;
use super::Act;

/// Programs that send what they are given.
const CLIENTS: &[&str] = &[
    "curl", "wget", "http", "https", "xh", "nc", "ncat", "netcat", "socat", "ssh", "scp", "sftp", "rsync",
    "ftp", "telnet", "aws", "gsutil", "rclone", "dig", "nslookup", "host", "ping", "s3cmd", "mail",
    "sendmail",
];
const SHELLS: &[&str] = &["sh", "bash", "dash", "zsh", "ksh", "ash"];

/// Whether a path opens a connection to another machine, as bash takes it.
pub(super) fn is_socket(path: &str) -> bool {
    let host = path.strip_prefix("/dev/tcp/").or_else(|| path.strip_prefix("/dev/udp/"));
    host.is_some_and(|host| !matches!(host.split('/').next(), Some("localhost" | "127.0.0.1" | "::1")))
}

/// `nc -e`, `socat EXEC:`.
pub(super) fn reverse_shell(act: &Act<'_>) -> Option<String> {
    let opens = match act.name {
        "nc" | "ncat" | "netcat" => {
            act.has_letter(&['e', 'c']) && act.args.len() > 1
                || act.texts().any(|arg| {
                    let name = |word: &str| arg.starts_with(word);
                    name("--exec") || name("--sh-exec") || name("--lua-exec")
                })
        }
        "socat" => act.texts().any(|arg| {
            let arg = arg.to_ascii_lowercase();
            arg.starts_with("exec:") || arg.starts_with("system:") || arg.starts_with("shell:")
        }),
        name if SHELLS.contains(&name) => act.has_letter(&['i']) && act.input.origin.network,
        _ => false,
    };
    opens.then(|| "it opens a shell to somewhere else".to_owned())
}

/// Credentials, the environment or the whole workspace, given to a program that sends them.
pub(super) fn upload(act: &Act<'_>) -> Option<String> {
    let tool = act.name == "openssl" && act.has(&["s_client"]);
    let publishes = act.name == "gh" && act.begins(&["gist", "create"]);
    if !(CLIENTS.contains(&act.name) || tool || publishes) {
        return None;
    }
    let secret = "it sends credentials or the environment away".to_owned();
    // A request that only downloads reads nothing.
    let reads_input =
        act.name != "curl" || act.texts().any(|arg| arg.ends_with("@-") || matches!(arg, "-" | "."));
    let reads_input = reads_input || act.texts().any(|arg| arg.starts_with("-T"));
    if (act.input.origin.secret && reads_input) || act.args.iter().any(|arg| arg.origin.secret) {
        return Some(secret);
    }
    let sent = sent(act);
    if sent.iter().any(|path| files::holds_credentials(path)) {
        return Some(secret);
    }
    let copies = matches!(act.name, "scp" | "rsync" | "aws" | "gsutil" | "rclone" | "s3cmd");
    let broad = sent.iter().filter(|_| copies).find_map(|path| act.is_broad(path));
    broad.map(|what| format!("it sends {what} away"))
}

/// The files that a program sends.
fn sent(act: &Act<'_>) -> Vec<String> {
    let mut sent = Vec::new();
    let file = |text: &str| {
        // `@file`, `name=@file`, `name@file`, with what follows it.
        let (_, file) = text.split_once('@').or_else(|| text.split_once("=<"))?;
        Some(file.split([';', ',']).next().unwrap_or(file).to_owned())
    };
    match act.name {
        "curl" | "wget" | "http" | "https" | "xh" => {
            for (at, arg) in act.args.iter().enumerate() {
                let text = arg.text.as_str();
                let next = || act.args.get(at + 1).map(|next| next.text.clone());
                let is_upload =
                    text == "--upload-file" || wrappers::is_cluster(text, 'T') && act.name == "curl";
                if is_upload {
                    let attached = text.split_once('T').map(|(_, rest)| rest.to_owned());
                    sent.extend(
                        attached.filter(|rest| !rest.is_empty() && !text.starts_with("--")).or_else(next),
                    );
                }
                let long = ["--post-file=", "--body-file=", "--upload-file="];
                sent.extend(long.iter().find_map(|name| text.strip_prefix(name)).map(str::to_owned));
                if matches!(text, "--post-file" | "--body-file") {
                    sent.extend(next());
                }
                if !text.contains("://") {
                    sent.extend(file(text));
                }
            }
        }
        "scp" | "rsync" | "rclone" | "gsutil" | "aws" | "s3cmd" => {
            let operands: Vec<&str> = act.operands().collect();
            let is_remote = |path: &&str| path.contains(':');
            if operands.last().is_some_and(is_remote) {
                sent.extend(operands.iter().filter(|path| !is_remote(path)).map(|path| (*path).to_owned()));
            }
        }
        "gh" | "mail" => sent.extend(act.operands().map(str::to_owned)),
        _ => {}
    }
    sent
}

/// A request that deletes what is on another machine.
pub(super) fn http_delete(act: &Act<'_>) -> Option<String> {
    let upper = |text: &str| text.to_ascii_uppercase();
    let args: Vec<String> = act.texts().map(upper).collect();
    let follows = |option: &str| {
        args.windows(2).any(|pair| matches!(pair, [name, method] if name == option && method == "DELETE"))
    };
    let clustered = |arg: &String| wrappers::is_cluster(arg, 'X') && arg.ends_with("XDELETE");
    let deletes = match act.name {
        "curl" => {
            let cluster = act.args.windows(2).any(|pair| {
                matches!(pair, [name, method] if name.text.ends_with('X') && wrappers::is_cluster(&name.text, 'X')
                    && method.text.eq_ignore_ascii_case("DELETE"))
            });
            cluster
                || follows("--REQUEST")
                || args.iter().any(|arg| arg == "--REQUEST=DELETE" || clustered(arg))
        }
        "wget" => follows("--METHOD") || args.iter().any(|arg| arg == "--METHOD=DELETE"),
        "http" | "https" | "xh" => act.operands().next().is_some_and(|first| upper(first) == "DELETE"),
        "gh" if act.begins(&["api"]) => {
            follows("-X")
                || follows("--METHOD")
                || args.iter().any(|arg| arg == "--METHOD=DELETE" || clustered(arg))
        }
        _ => false,
    };
    // What runs beside the agent is its own.
    let is_local = args.iter().any(|arg| arg.contains("://LOCALHOST") || arg.contains("://127.0.0.1"));
    let is_local = is_local || args.iter().any(|arg| arg.starts_with("LOCALHOST") || arg.starts_with(":"));
    (deletes && !is_local).then(|| "it asks another machine to delete something".to_owned())
}
