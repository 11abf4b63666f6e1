//! Recognizes the paths that the risk rules look for: broad directories such as `/` or `~`, and credential
//! files. Also records the content of files that the command itself has written.

use super::analyzer::{Analysis, Analyzer, Origin, UNKNOWN, Value};
use super::glob;

/// The working directory in which a command starts.
const WORKSPACE: &str = "/workspace";
/// Broad directories, whose deletion would destroy a lot, each with a description for a person. `/tmp` is not
/// one of them, because its content is disposable.
const BROAD: &[(&str, &str)] = &[
    ("/", "the whole file system"),
    ("/workspace", "everything in the workspace"),
    ("/workspace/.git", "the history of the workspace"),
    ("/workspace/memory", "all memories"),
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
/// The description of a path with an unknown part, for example an unset variable. The path may turn out to be
/// a broad directory such as `/`.
const UNRESOLVED_PATH: &str = "a path that is not known in advance";
/// Patterns for the paths of credential files. Each pattern is compared with the last components of a path.
/// `*` matches any characters.
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

impl Analyzer {
    /// Returns the current working directory of the simulated shell.
    pub(super) fn working_dir(&self) -> String {
        self.directory.clone().unwrap_or_else(|| WORKSPACE.to_owned())
    }

    /// Returns the absolute path, with `.` and `..` resolved. A path in the home directory begins with `~`.
    pub(super) fn resolve(&self, path: &str) -> String {
        resolve(&self.working_dir(), path)
    }

    /// Records that the command writes a file. If the command reads the file later, `read` returns this
    /// content.
    pub(super) fn write(&mut self, path: &str, text: &Value, appends: bool) -> Analysis<()> {
        self.budget.charge(text.text.len())?;
        let path = self.resolve(path);
        let file = self.written.entry(path).or_default();
        if !appends {
            *file = Value::default();
        }
        file.push(text);
        Ok(())
    }

    /// Returns the content of a file. The content is known only if the command itself has written the file.
    pub(super) fn read(&self, path: &Value) -> Value {
        if matches!(path.text.as_str(), "-" | "/dev/stdin" | "/dev/fd/0" | "/proc/self/fd/0") {
            return (*self.input).clone();
        }
        if path.text == "/dev/null" {
            return Value::default();
        }
        if let Some(written) = self.written.get(&self.resolve(&path.text)) {
            return written.clone();
        }
        Value::unknown(Origin { secret: holds_credentials(&path.text), ..path.origin })
    }

    /// Returns a description of the path if it is broad, for example the workspace or a home directory, and
    /// `None` otherwise. Deleting or changing a broad path as a whole needs an approval.
    pub(super) fn broad(&self, path: &str) -> Option<&'static str> {
        broad_from(&self.working_dir(), path)
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
        return broad_known_path(directory, path);
    }
    // The unknown part of the path may be empty, as for an unset variable, or have any other value.
    let empty = path.replace(UNKNOWN, "");
    if empty.is_empty() || empty == "/" || broad_known_path(directory, &empty).is_some() {
        return Some(UNRESOLVED_PATH);
    }
    let any_value = path.replace(UNKNOWN, "*");
    let absolute = any_value.starts_with('/');
    (absolute && broad_known_path(directory, &any_value).is_some()).then_some(UNRESOLVED_PATH)
}

fn broad_known_path(directory: &str, path: &str) -> Option<&'static str> {
    let mut whole = resolve(directory, path);
    if directory.contains(UNKNOWN) && !path.starts_with(['/', '~']) {
        whole = whole.replace(UNKNOWN, "");
        whole = if whole == "/" { WORKSPACE.to_owned() } else { resolve("/", &whole) };
    }
    let mut trimmed: &str = &whole;
    // If the last component matches everything in its directory, as in `/usr/*`, the whole directory is
    // affected.
    while let Some((parent, last)) = trimmed.rsplit_once('/')
        && last.contains(['*', '?'])
        && last.chars().all(|c| matches!(c, '*' | '?' | '.' | '[' | ']' | '!' | '^'))
    {
        trimmed = if parent.is_empty() { "/" } else { parent };
        if trimmed == "/" {
            break;
        }
    }
    if trimmed.starts_with('~') && !trimmed.contains('/') {
        return Some("the home directory");
    }
    let parts = |path: &str| path.matches('/').count();
    let is_user_home = trimmed.strip_prefix("/home/").is_some_and(|user| !user.contains('/'));
    let matches = |broad: &str| {
        broad == trimmed
            || (glob::is_pattern(trimmed) && parts(broad) == parts(trimmed) && glob::matches(trimmed, broad))
    };
    let found = BROAD.iter().find(|(broad, _)| matches(broad)).map(|(_, description)| *description);
    found.or_else(|| is_user_home.then_some("a home directory"))
}

/// Returns true if the path is that of a credential file. Example files and public keys do not count.
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
        let separators = pattern.matches('/').count().max(usize::from(pattern.starts_with('/')));
        let tail: Vec<&str> = path.rsplit('/').take(separators + 1).collect();
        let tail = tail.into_iter().rev().collect::<Vec<_>>().join("/");
        let tail = if pattern.starts_with("/environ") { format!("/{name}") } else { tail };
        glob::matches(pattern, &tail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broad_paths_are_recognized_in_every_spelling() {
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
        assert_eq!(broad_from("/", "*"), Some("the whole file system"));
    }

    #[test]
    fn credential_files_are_recognized_by_path() {
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
