//! Risk rules for irreversible changes outside the sandbox (in repositories, databases, cloud resources and
//! package registries), and for discarding uncommitted work.

use super::super::sql;
use super::Invocation;

/// Client programs that send statements to a database.
pub(super) const DATABASE_CLIENTS: &[&str] = &[
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
/// Commands that destroy resources that others may use. Each entry lists the program, the words of the
/// subcommand, and options. If options are listed, the command must have at least one of them.
const DESTROY_COMMANDS: &[(&str, &[&str], &[&str])] = &[
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
/// Commands that publish something that cannot be withdrawn. Each entry lists the program and the words of
/// the subcommand.
const PUBLISH_COMMANDS: &[(&str, &[&str])] = &[
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

/// Returns the names of all programs in this module's tables.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let destroying = DESTROY_COMMANDS.iter().map(|(tool, ..)| *tool);
    let publishing = PUBLISH_COMMANDS.iter().map(|(tool, _)| *tool);
    DATABASE_CLIENTS.iter().copied().chain(destroying).chain(publishing)
}

/// Returns the git subcommand and its arguments, or `None` if the program is not `git`.
fn git<'a>(invocation: &'a Invocation<'_>) -> Option<(&'a str, Vec<&'a str>)> {
    if invocation.name != "git" {
        return None;
    }
    let rest =
        super::super::wrappers::after_options(invocation.args, "Cc", &["git-dir", "work-tree", "namespace"]);
    let (command, rest) = rest.split_first()?;
    Some((&command.text, rest.iter().map(|arg| arg.text.as_str()).collect()))
}

/// Detects a `git push` that rewrites or deletes remote history. `--force-with-lease` counts too: it only
/// makes sure that nobody else has pushed since the last fetch, and can still drop commits.
pub(super) fn push(invocation: &Invocation<'_>) -> Option<String> {
    let (command, args) = git(invocation)?;
    if command != "push" {
        return None;
    }
    let operands: Vec<&str> = args.iter().copied().filter(|arg| !arg.starts_with('-')).collect();
    let forces = args
        .iter()
        .any(|arg| arg.starts_with("--f") && "--force".starts_with(*arg) || arg.starts_with("--force"))
        || args.iter().any(|arg| super::super::wrappers::has_short_option(arg, 'f'))
        || operands.iter().skip(1).any(|arg| arg.starts_with('+'));
    let deletes = args.iter().any(|arg| matches!(*arg, "--delete" | "--mirror" | "--prune"))
        || args.iter().any(|arg| super::super::wrappers::has_short_option(arg, 'd'))
        || operands.iter().skip(1).any(|arg| arg.starts_with(':') && arg.len() > 1);
    match (forces, deletes) {
        (true, _) => Some("it replaces the history of a repository that others use".to_owned()),
        (_, true) => Some("it deletes from a repository that others use".to_owned()),
        _ => None,
    }
}

/// Detects git commands that discard all uncommitted work, which exists nowhere else and may belong to a
/// person. It is allowed to discard a single file, or the work in a repository below `/tmp`.
pub(super) fn discard(invocation: &Invocation<'_>) -> Option<String> {
    let (command, args) = git(invocation)?;
    let directory = invocation
        .texts()
        .zip(invocation.texts().skip(1))
        .find_map(|(option, path)| (option == "-C").then_some(path));
    if invocation.working_dir.starts_with("/tmp/") || directory.is_some_and(|path| path.starts_with("/tmp/"))
    {
        return None;
    }
    let letter = |letter: char| args.iter().any(|arg| super::super::wrappers::has_short_option(arg, letter));
    let everything = args.iter().any(|arg| matches!(*arg, "." | "./" | ":/" | "*" | "/workspace" | ":/*"));
    let discards = match command {
        "reset" => args.iter().any(|arg| arg.len() > 4 && "--hard".starts_with(*arg)),
        "clean" => {
            let forces = letter('f') || args.contains(&"--force");
            let is_dry_run = letter('n') || args.contains(&"--dry-run");
            forces && !is_dry_run && (letter('d') || letter('x') || letter('X'))
        }
        "checkout" => everything || letter('f') || args.contains(&"--force"),
        "restore" => everything && (!args.contains(&"--staged") || args.contains(&"--worktree")),
        _ => false,
    };
    discards.then(|| "it discards uncommitted work".to_owned())
}

/// Detects database statements that destroy data.
pub(super) fn drop_data(invocation: &Invocation<'_>) -> Option<String> {
    if !DATABASE_CLIENTS.contains(&invocation.name) {
        return None;
    }
    let joined = invocation.texts().collect::<Vec<_>>().join(" ");
    let mut statements =
        invocation.texts().map(strip_option).chain([invocation.input.text.as_str(), joined.as_str()]);
    statements.find_map(sql::destroys).map(|description| format!("it deletes {description}"))
}

/// Removes an option that is attached to an SQL statement, as in `-cDROP …` or `--command=DROP …`.
fn strip_option(arg: &str) -> &str {
    match arg.strip_prefix("--") {
        Some(long) => long.split_once('=').map_or(arg, |(_, value)| value),
        None => arg.strip_prefix("-c").or_else(|| arg.strip_prefix("-e")).unwrap_or(arg),
    }
}

pub(super) fn destroy(invocation: &Invocation<'_>) -> Option<String> {
    let is_dry_run =
        invocation.texts().any(|arg| arg.starts_with("--dry-run") || arg == "--dryrun" || arg == "--help");
    let destroys = |(tool, words, options): &(&str, &[&str], &[&str])| {
        *tool == invocation.name
            && invocation.has_subcommand(words)
            && (options.is_empty() || invocation.has(options))
    };
    // The AWS CLI has too many destructive subcommands to list, so they are recognized by their prefix, for
    // example `aws ec2 terminate-instances` and `aws rds delete-db-instance`.
    let aws = invocation.name == "aws"
        && invocation
            .operands()
            .skip(1)
            .take(2)
            .any(|word| word.starts_with("delete-") || word.starts_with("terminate-"));
    (!is_dry_run && (aws || DESTROY_COMMANDS.iter().any(destroys)))
        .then(|| "it destroys resources that others may use".to_owned())
}

pub(super) fn publish(invocation: &Invocation<'_>) -> Option<String> {
    let is_dry_run = invocation.texts().any(|arg| matches!(arg, "--dry-run" | "-n" | "--help"));
    let publishes = |(tool, words): &(&str, &[&str])| {
        *tool == invocation.name && invocation.operands().next().is_some_and(|first| words.contains(&first))
    };
    let image = invocation.name == "docker" && invocation.has(&["--push"]);
    let image =
        image || (invocation.name == "docker" && invocation.operands().take(3).any(|word| word == "push"));
    (!is_dry_run && (image || PUBLISH_COMMANDS.iter().any(publishes)))
        .then(|| "it publishes something that cannot be withdrawn".to_owned())
}
