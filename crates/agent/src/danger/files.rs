//! Paths: which are broad, which hold credentials, and what a command wrote to files itself.

use super::glob;
use super::judge::{Judge, Origin, Text, UNKNOWN, Verdict};

/// Where a command starts.
const WORKSPACE: &str = "/workspace";
/// Directories of a system that hold somebody's everything. Not `/tmp`: it is there to be emptied.
const BROAD: &[(&str, &str)] = &[
    ("/", "everything there is"),
    ("/workspace", "everything in the workspace"),
    ("/workspace/.git", "the history of the workspace"),
    ("/workspace/memory", "everything remembered"),
    ("/home", "every home directory"),
    ("/root", "the home directory"),
    ("~", "the home directory"),
    ("/etc", "the system's settings"),
    ("/usr", "the system"),
    ("/var", "the system's data"),
    ("/bin", "the system's programs"),
    ("/sbin", "the system's programs"),
    ("/lib", "the system's libraries"),
    ("/lib64", "the system's libraries"),
    ("/boot", "the system's kernel"),
    ("/opt", "installed programs"),
    ("/dev", "the system's devices"),
    ("/proc", "the system's processes"),
    ("/sys", "the system"),
    ("/srv", "the system's data"),
    ("/mnt", "mounted disks"),
    ("/media", "mounted disks"),
];
/// What an unset variable names, or a value that is not known.
const UNRESOLVED: &str = "what a value that is not known here names";
/// Files that are read for who one is, by the end of their path.
const CREDENTIALS: &[&str] = &[
    ".env",
    ".netrc",
    ".pgpass",
    ".npmrc",
    ".pypirc",
    ".git-credentials",
    ".aws/credentials",
    ".vault-token",
    "id_rsa",
    "id_dsa",
    "id_ecdsa",
    "id_ed25519",
    ".ssh",
    ".ssh/*",
    ".gnupg",
    ".gnupg/*",
    ".aws",
    ".kube/config",
    ".docker/config.json",
    "/environ",
    "/etc/shadow",
    "/etc/passwd",
    "credentials.json",
    "service-account.json",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "*.keystore",
    "*.jks",
    "*.kdbx",
    ".bash_history",
    ".htpasswd",
    "secrets.yml",
    "secrets.yaml",
    "secrets.json",
    ".config/gh/hosts.yml",
    "application_default_credentials.json",
];

impl Judge {
    /// The directory that a command runs in.
    pub(super) fn here(&self) -> String {
        self.directory.clone().unwrap_or_else(|| WORKSPACE.to_owned())
    }

    /// A path made absolute, without `.` and `..`.
    pub(super) fn resolve(&self, path: &str) -> String {
        resolve(&self.here(), path)
    }

    /// Writes to a file, as far as the rest of the command can tell.
    pub(super) fn write(&mut self, path: &str, text: &Text, appends: bool) -> Verdict<()> {
        self.budget.charge(text.text.len())?;
        let path = self.resolve(path);
        let file = self.written.entry(path).or_default();
        if !appends {
            *file = Text::default();
        }
        file.push(text);
        Ok(())
    }

    /// What a file holds: what the command wrote to it, or what nobody can know.
    pub(super) fn read(&self, path: &Text) -> Text {
        if matches!(path.text.as_str(), "-" | "/dev/stdin" | "/dev/fd/0" | "/proc/self/fd/0") {
            return (*self.input).clone();
        }
        if path.text == "/dev/null" {
            return Text::default();
        }
        if let Some(written) = self.written.get(&self.resolve(&path.text)) {
            return written.clone();
        }
        Text::unknown(Origin { secret: holds_credentials(&path.text), ..path.origin })
    }

    /// What an absolute or relative path names, if it is more than anybody should touch at once.
    pub(super) fn broad(&self, path: &str) -> Option<&'static str> {
        broad_from(&self.here(), path)
    }
}

fn resolve(directory: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let home = path.starts_with('~');
    let whole = if path.starts_with('/') || home { path.to_owned() } else { format!("{directory}/{path}") };
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last() == Some(&"~") => {
                parts = vec!["home"];
            }
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    if parts.first().is_some_and(|part| part.starts_with('~')) {
        parts.join("/")
    } else {
        format!("/{}", parts.join("/"))
    }
}

pub(super) fn broad_from(directory: &str, path: &str) -> Option<&'static str> {
    if path.is_empty() {
        return None;
    }
    if !path.contains(UNKNOWN) {
        return exactly(directory, path);
    }
    // Empty, as an unset variable is; or whatever.
    let empty = path.replace(UNKNOWN, "");
    if empty.is_empty() || empty == "/" || exactly(directory, &empty).is_some() {
        return Some(UNRESOLVED);
    }
    let whatever = path.replace(UNKNOWN, "*");
    let absolute = whatever.starts_with('/');
    (absolute && exactly(directory, &whatever).is_some()).then_some(UNRESOLVED)
}

fn exactly(directory: &str, path: &str) -> Option<&'static str> {
    let mut whole = resolve(directory, path);
    if directory.contains(UNKNOWN) && !path.starts_with(['/', '~']) {
        whole = whole.replace(UNKNOWN, "");
        whole = if whole == "/" { WORKSPACE.to_owned() } else { resolve("/", &whole) };
    }
    let mut kept: &str = &whole;
    // A last part that matches everything in its directory stands for it.
    while let Some((parent, last)) = kept.rsplit_once('/')
        && last.contains(['*', '?'])
        && last.chars().all(|c| matches!(c, '*' | '?' | '.' | '[' | ']' | '!' | '^'))
    {
        kept = if parent.is_empty() { "/" } else { parent };
        if kept == "/" {
            break;
        }
    }
    if kept.starts_with('~') && !kept.contains('/') {
        return Some("the home directory");
    }
    let parts = |path: &str| path.matches('/').count();
    let user = kept.strip_prefix("/home/").is_some_and(|user| !user.contains('/'));
    let matches = |broad: &str| {
        broad == kept || (glob::is_pattern(kept) && parts(broad) == parts(kept) && glob::matches(kept, broad))
    };
    let found = BROAD.iter().find(|(broad, _)| matches(broad)).map(|(_, what)| *what);
    found.or_else(|| user.then_some("a home directory"))
}

/// Whether a path is one of those that hold credentials. Examples and public keys are not.
pub(super) fn holds_credentials(path: &str) -> bool {
    let path = path.trim_matches(|c| matches!(c, '"' | '\'' | '@' | ' '));
    let name = path.rsplit('/').next().unwrap_or(path);
    if name.ends_with(".example")
        || name.ends_with(".sample")
        || name.ends_with(".template")
        || name.ends_with(".pub")
    {
        return false;
    }
    let env = name.strip_prefix(".env.").is_some_and(|rest| !rest.is_empty());
    env || CREDENTIALS.iter().any(|pattern| {
        let wanted = pattern.matches('/').count().max(usize::from(pattern.starts_with('/')));
        let tail: Vec<&str> = path.rsplit('/').take(wanted + 1).collect();
        let tail = tail.into_iter().rev().collect::<Vec<_>>().join("/");
        let tail = if pattern.starts_with("/environ") { format!("/{name}") } else { tail };
        glob::matches(pattern, &tail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broad_paths_are_known_however_they_are_written() {
        for path in [
            "/",
            "//",
            "/.",
            "/*",
            ".",
            "./",
            "..",
            "*",
            "./*",
            ".*",
            "/workspace",
            "/workspace/",
            "/workspace/*",
            "/tmp/../workspace",
            "build/..",
            "/w*",
            "/work?pace",
            "~",
            "~/",
            "~/*",
            "~bob",
            "/home/bob",
            "/etc",
            "\u{fdd0}",
            "\u{fdd0}/",
            "\u{fdd0}/*",
            "./\u{fdd0}",
            "\u{fdd0}/home",
            "memory",
            ".git",
            "/*/",
        ] {
            assert!(broad_from(WORKSPACE, path).is_some(), "{path}");
        }
        for path in [
            "build",
            "./build",
            "node_modules",
            "/tmp/x",
            "/tmp/*",
            "*.o",
            "build/*",
            "\u{fdd0}/build",
            "/tmp/\u{fdd0}",
            "build-\u{fdd0}",
            "/var/lib/apt/lists/*",
            "~/.cache/pip",
            "../workspace/x",
            "",
        ] {
            assert_eq!(broad_from(WORKSPACE, path), None, "{path}");
        }
        assert_eq!(broad_from("/tmp/x", "*"), None);
        assert_eq!(broad_from("/", "*"), Some("everything there is"));
    }

    #[test]
    fn credentials_are_known_by_their_paths() {
        for path in [
            ".env",
            "/workspace/.env",
            ".env.production",
            "~/.ssh/id_rsa",
            "a/b.pem",
            "/proc/self/environ",
            "~/.aws/credentials",
            "/etc/passwd",
            "@.env",
            ".ssh",
        ] {
            assert!(holds_credentials(path), "{path}");
        }
        for path in [".env.example", "id_rsa.pub", "environment.yml", "report.json", "key.txt", "src/env.rs"]
        {
            assert!(!holds_credentials(path), "{path}");
        }
    }
}
