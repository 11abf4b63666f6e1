//! Risk rules for uploads of secrets, reverse shells, and deletions on other machines.

use super::super::files;
use super::super::wrappers;
use super::Invocation;

/// Programs that can send data over the network.
const NETWORK_PROGRAMS: &[&str] = &[
    "curl", "wget", "http", "https", "xh", "nc", "ncat", "netcat", "socat", "ssh", "scp", "sftp", "rsync",
    "ftp", "telnet", "aws", "gsutil", "rclone", "dig", "nslookup", "host", "ping", "s3cmd", "mail",
    "sendmail",
];
const SHELLS: &[&str] = &["sh", "bash", "dash", "zsh", "ksh", "ash"];

/// Returns true for paths such as `/dev/tcp/…`, for which Bash opens a connection to another machine.
pub(super) fn is_socket(path: &str) -> bool {
    let host = path.strip_prefix("/dev/tcp/").or_else(|| path.strip_prefix("/dev/udp/"));
    host.is_some_and(|host| !matches!(host.split('/').next(), Some("localhost" | "127.0.0.1" | "::1")))
}

/// Detects reverse shells: `nc -e`, `socat EXEC:`, and interactive shells that read from the network.
pub(super) fn reverse_shell(invocation: &Invocation<'_>) -> Option<String> {
    let opens = match invocation.name {
        "nc" | "ncat" | "netcat" => {
            invocation.has_short_option(&['e', 'c']) && invocation.args.len() > 1
                || invocation.texts().any(|arg| {
                    let name = |word: &str| arg.starts_with(word);
                    name("--exec") || name("--sh-exec") || name("--lua-exec")
                })
        }
        "socat" => invocation.texts().any(|arg| {
            let arg = arg.to_ascii_lowercase();
            arg.starts_with("exec:") || arg.starts_with("system:") || arg.starts_with("shell:")
        }),
        name if SHELLS.contains(&name) => {
            invocation.has_short_option(&['i']) && invocation.input.origin.network
        }
        _ => false,
    };
    opens.then(|| "it opens a shell for another machine".to_owned())
}

/// Detects a program that sends credentials, the environment variables or the whole workspace over the
/// network.
pub(super) fn upload(invocation: &Invocation<'_>) -> Option<String> {
    let tls_client = invocation.name == "openssl" && invocation.has(&["s_client"]);
    let publishes = invocation.name == "gh" && invocation.has_subcommand(&["gist", "create"]);
    if !(NETWORK_PROGRAMS.contains(&invocation.name) || tls_client || publishes) {
        return None;
    }
    let secret = "it uploads credentials or the environment".to_owned();
    // `curl` reads the standard input only if an argument tells it to, for example `@-` or `-T`.
    let reads_input = invocation.name != "curl"
        || invocation.texts().any(|arg| arg.ends_with("@-") || matches!(arg, "-" | "."));
    let reads_input = reads_input || invocation.texts().any(|arg| arg.starts_with("-T"));
    if (invocation.input.origin.secret && reads_input) || invocation.args.iter().any(|arg| arg.origin.secret)
    {
        return Some(secret);
    }
    let sent = uploaded_files(invocation);
    if sent.iter().any(|path| files::holds_credentials(path)) {
        return Some(secret);
    }
    let copies = matches!(invocation.name, "scp" | "rsync" | "aws" | "gsutil" | "rclone" | "s3cmd");
    let broad = sent.iter().filter(|_| copies).find_map(|path| invocation.is_broad(path));
    broad.map(|description| format!("it uploads {description}"))
}

/// Returns the paths of the files that the program uploads.
fn uploaded_files(invocation: &Invocation<'_>) -> Vec<String> {
    let mut sent = Vec::new();
    let file = |text: &str| {
        // curl and HTTPie name a file as `@file`, `name=@file` or `name@file`, possibly followed by
        // `;type=…`.
        let (_, file) = text.split_once('@').or_else(|| text.split_once("=<"))?;
        Some(file.split([';', ',']).next().unwrap_or(file).to_owned())
    };
    match invocation.name {
        "curl" | "wget" | "http" | "https" | "xh" => {
            for (at, arg) in invocation.args.iter().enumerate() {
                let text = arg.text.as_str();
                let next = || invocation.args.get(at + 1).map(|next| next.text.clone());
                let is_upload = text == "--upload-file"
                    || wrappers::has_short_option(text, 'T') && invocation.name == "curl";
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
            let operands: Vec<&str> = invocation.operands().collect();
            let is_remote = |path: &&str| path.contains(':');
            if operands.last().is_some_and(is_remote) {
                sent.extend(operands.iter().filter(|path| !is_remote(path)).map(|path| (*path).to_owned()));
            }
        }
        "gh" | "mail" => sent.extend(invocation.operands().map(str::to_owned)),
        _ => {}
    }
    sent
}

/// Detects HTTP requests that delete something on another machine.
pub(super) fn http_delete(invocation: &Invocation<'_>) -> Option<String> {
    let upper = |text: &str| text.to_ascii_uppercase();
    let args: Vec<String> = invocation.texts().map(upper).collect();
    let follows = |option: &str| {
        args.windows(2).any(|pair| matches!(pair, [name, method] if name == option && method == "DELETE"))
    };
    let clustered = |arg: &String| wrappers::has_short_option(arg, 'X') && arg.ends_with("XDELETE");
    let deletes = match invocation.name {
        "curl" => {
            let cluster = invocation.args.windows(2).any(|pair| {
                matches!(pair, [name, method] if name.text.ends_with('X') && wrappers::has_short_option(&name.text, 'X')
                    && method.text.eq_ignore_ascii_case("DELETE"))
            });
            cluster
                || follows("--REQUEST")
                || args.iter().any(|arg| arg == "--REQUEST=DELETE" || clustered(arg))
        }
        "wget" => follows("--METHOD") || args.iter().any(|arg| arg == "--METHOD=DELETE"),
        "http" | "https" | "xh" => invocation.operands().next().is_some_and(|first| upper(first) == "DELETE"),
        "gh" if invocation.has_subcommand(&["api"]) => {
            follows("-X")
                || follows("--METHOD")
                || args.iter().any(|arg| arg == "--METHOD=DELETE" || clustered(arg))
        }
        _ => false,
    };
    // A server on the loopback interface runs in the agent's own sandbox, so deletions there are allowed.
    let is_local = args.iter().any(|arg| arg.contains("://LOCALHOST") || arg.contains("://127.0.0.1"));
    let is_local = is_local || args.iter().any(|arg| arg.starts_with("LOCALHOST") || arg.starts_with(":"));
    (deletes && !is_local).then(|| "it asks another machine to delete something".to_owned())
}
