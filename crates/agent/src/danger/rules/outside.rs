//! What cannot be taken back outside of the sandbox: repositories, databases, clouds, registries. And work that
//! is in no repository yet.

use super::super::sql;
use super::Act;

/// Programs that give statements to a database.
pub(super) const DATABASES: &[&str] = &[
    "psql",
    "mysql",
    "mariadb",
    "sqlite3",
    "sqlite",
    "mongo",
    "mongosh",
    "redis-cli",
    "sqlcmd",
    "clickhouse-client",
    "duckdb",
    "cockroach",
    "cqlsh",
    "pgcli",
    "mycli",
    "usql",
    "bq",
    "snowsql",
    "valkey-cli",
];
/// Commands that take down what others use: the tool, its words, and one of which is needed besides.
const DESTROYING: &[(&str, &[&str], &[&str])] = &[
    ("terraform", &["destroy"], &[]),
    ("terraform", &["apply"], &["-destroy", "--destroy"]),
    ("tofu", &["destroy"], &[]),
    ("tofu", &["apply"], &["-destroy", "--destroy"]),
    ("terragrunt", &["destroy"], &[]),
    ("pulumi", &["destroy"], &[]),
    ("cdk", &["destroy"], &[]),
    ("serverless", &["remove"], &[]),
    ("kubectl", &["delete"], &[]),
    ("kubectl", &["drain"], &[]),
    ("oc", &["delete"], &[]),
    ("helm", &["uninstall"], &[]),
    ("helm", &["delete"], &[]),
    ("aws", &["s3", "rm"], &["--recursive"]),
    ("aws", &["s3", "rb"], &["--force"]),
    ("aws", &["s3", "sync"], &["--delete"]),
    ("gcloud", &["delete"], &[]),
    ("gsutil", &["rm"], &["-r", "-R", "-rf"]),
    ("gsutil", &["rb"], &[]),
    ("az", &["delete"], &[]),
    ("doctl", &["delete"], &[]),
    ("flyctl", &["destroy"], &[]),
    ("fly", &["destroy"], &[]),
    ("heroku", &["apps:destroy"], &[]),
    ("vercel", &["remove"], &[]),
    ("gh", &["repo", "delete"], &[]),
    ("gh", &["release", "delete"], &[]),
    ("glab", &["repo", "delete"], &[]),
    ("dropdb", &[], &[]),
    ("mysqladmin", &["drop"], &[]),
];
/// Commands that make something public that cannot be called back.
const PUBLISHING: &[(&str, &[&str])] = &[
    ("npm", &["publish"]),
    ("npm", &["unpublish"]),
    ("pnpm", &["publish"]),
    ("yarn", &["publish"]),
    ("bun", &["publish"]),
    ("cargo", &["publish"]),
    ("cargo", &["yank"]),
    ("twine", &["upload"]),
    ("poetry", &["publish"]),
    ("uv", &["publish"]),
    ("flit", &["publish"]),
    ("docker", &["push"]),
    ("podman", &["push"]),
    ("buildah", &["push"]),
    ("skopeo", &["copy"]),
    ("gem", &["push"]),
    ("hex", &["publish"]),
    ("helm", &["push"]),
    ("vsce", &["publish"]),
    ("hatch", &["publish"]),
    ("pdm", &["publish"]),
];

/// Every program of the tables.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let destroying = DESTROYING.iter().map(|(tool, ..)| *tool);
    let publishing = PUBLISHING.iter().map(|(tool, _)| *tool);
    DATABASES.iter().copied().chain(destroying).chain(publishing)
}

/// The words of `git` from its command on.
fn git<'a>(act: &'a Act<'_>) -> Option<(&'a str, Vec<&'a str>)> {
    if act.name != "git" {
        return None;
    }
    let rest = super::super::wrappers::after_options(act.args, "Cc", &["git-dir", "work-tree", "namespace"]);
    let (command, rest) = rest.split_first()?;
    Some((&command.text, rest.iter().map(|arg| arg.text.as_str()).collect()))
}

/// A push that replaces or removes what others see. `--force-with-lease` too: it only makes sure that nothing
/// was pushed in between, and still drops what was there.
pub(super) fn push(act: &Act<'_>) -> Option<String> {
    let (command, args) = git(act)?;
    if command != "push" {
        return None;
    }
    let operands: Vec<&str> = args.iter().copied().filter(|arg| !arg.starts_with('-')).collect();
    let forces = args
        .iter()
        .any(|arg| arg.starts_with("--f") && "--force".starts_with(*arg) || arg.starts_with("--force"))
        || args.iter().any(|arg| super::super::wrappers::is_cluster(arg, 'f'))
        || operands.iter().skip(1).any(|arg| arg.starts_with('+'));
    let deletes = args.iter().any(|arg| matches!(*arg, "--delete" | "--mirror" | "--prune"))
        || args.iter().any(|arg| super::super::wrappers::is_cluster(arg, 'd'))
        || operands.iter().skip(1).any(|arg| arg.starts_with(':') && arg.len() > 1);
    match (forces, deletes) {
        (true, _) => Some("it replaces the history of a repository that others use".to_owned()),
        (_, true) => Some("it deletes from a repository that others use".to_owned()),
        _ => None,
    }
}

/// Throwing away all work that was not committed: it is nowhere else, and may be a person's. One file, or a
/// scratch copy below `/tmp`, is nothing to ask for.
pub(super) fn discard(act: &Act<'_>) -> Option<String> {
    let (command, args) = git(act)?;
    let directory =
        act.texts().zip(act.texts().skip(1)).find_map(|(option, path)| (option == "-C").then_some(path));
    if act.here.starts_with("/tmp/") || directory.is_some_and(|path| path.starts_with("/tmp/")) {
        return None;
    }
    let letter = |letter: char| args.iter().any(|arg| super::super::wrappers::is_cluster(arg, letter));
    let everything = args.iter().any(|arg| matches!(*arg, "." | "./" | ":/" | "*" | "/workspace" | ":/*"));
    let discards = match command {
        "reset" => args.iter().any(|arg| arg.len() > 4 && "--hard".starts_with(*arg)),
        "clean" => {
            let forces = letter('f') || args.contains(&"--force");
            let tries = letter('n') || args.contains(&"--dry-run");
            forces && !tries && (letter('d') || letter('x') || letter('X'))
        }
        "checkout" => everything || letter('f') || args.contains(&"--force"),
        "restore" => everything && (!args.contains(&"--staged") || args.contains(&"--worktree")),
        _ => false,
    };
    discards.then(|| "it throws away work that was not committed".to_owned())
}

/// Statements that destroy what a database holds.
pub(super) fn drop_data(act: &Act<'_>) -> Option<String> {
    if !DATABASES.contains(&act.name) {
        return None;
    }
    let joined = act.texts().collect::<Vec<_>>().join(" ");
    let mut given = act.texts().map(strip_option).chain([act.input.text.as_str(), joined.as_str()]);
    given.find_map(sql::destroys).map(|what| format!("it deletes {what}"))
}

/// `-cDROP …`, `--command=DROP …`: the statement alone.
fn strip_option(arg: &str) -> &str {
    match arg.strip_prefix("--") {
        Some(long) => long.split_once('=').map_or(arg, |(_, value)| value),
        None => arg.strip_prefix("-c").or_else(|| arg.strip_prefix("-e")).unwrap_or(arg),
    }
}

pub(super) fn destroy(act: &Act<'_>) -> Option<String> {
    let tries = act.texts().any(|arg| arg.starts_with("--dry-run") || arg == "--dryrun" || arg == "--help");
    let breaks = |(tool, words, options): &(&str, &[&str], &[&str])| {
        *tool == act.name && act.begins(words) && (options.is_empty() || act.has(options))
    };
    // `aws ec2 terminate-instances`, `aws rds delete-db-instance`.
    let aws = act.name == "aws"
        && act
            .operands()
            .skip(1)
            .take(2)
            .any(|word| word.starts_with("delete-") || word.starts_with("terminate-"));
    (!tries && (aws || DESTROYING.iter().any(breaks))).then(|| "it takes down what others may use".to_owned())
}

pub(super) fn publish(act: &Act<'_>) -> Option<String> {
    let tries = act.texts().any(|arg| matches!(arg, "--dry-run" | "-n" | "--help"));
    let publishes = |(tool, words): &(&str, &[&str])| {
        *tool == act.name && act.operands().next().is_some_and(|first| words.contains(&first))
    };
    let image = act.name == "docker" && act.has(&["--push"]);
    let image = image || (act.name == "docker" && act.operands().take(3).any(|word| word == "push"));
    (!tries && (image || PUBLISHING.iter().any(publishes)))
        .then(|| "it makes public what cannot be called back".to_owned())
}
