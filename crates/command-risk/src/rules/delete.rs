//! Risk rules for deleting broad paths, for example `/`, the workspace or a home directory.

use super::super::expand::is_partly_unknown;
use super::super::wrappers;
use super::Invocation;

/// Detects `rm -r` and similar commands on an unknown path, or on a broad path such as `/` or the workspace.
pub(super) fn recursive(invocation: &Invocation<'_>) -> Option<String> {
    let option = |arg: &str| match arg.strip_prefix('-') {
        Some(rest) if rest.starts_with('-') => rest.len() > 3 && "-recursive".starts_with(rest),
        Some(rest) => rest.contains(['r', 'R']) || is_partly_unknown(rest),
        None => false,
    };
    let options = invocation.texts().take_while(|arg| *arg != "--");
    let is_recursive = invocation.name == "rimraf" || options.clone().any(option);
    // An argument whose value is unknown may be the option `-r`.
    let may_be_recursive = invocation.args.iter().any(super::Value::is_unknown);
    if !matches!(invocation.name, "rm" | "rimraf" | "srm" | "trash") || !(is_recursive || may_be_recursive) {
        return None;
    }
    let paths = || invocation.operands().filter(|path| is_recursive || !is_partly_unknown(path));
    paths().find_map(|path| invocation.is_broad(path)).map(|description| format!("it deletes {description}"))
}

/// Detects `find` with `-delete` or `-exec rm` on a broad path such as `/`, unless a test such as `-name`
/// narrows the results.
pub(super) fn find_delete(invocation: &Invocation<'_>) -> Option<String> {
    let removes = |arg: &str| matches!(arg.rsplit('/').next(), Some("rm" | "shred" | "unlink"));
    let runs = invocation.has(&["-exec", "-execdir", "-ok", "-okdir"]);
    if invocation.name != "find"
        || !(invocation.has(&["-delete"])
            || (runs && invocation.texts().any(removes) && invocation.has(&["{}"])))
    {
        return None;
    }
    let found = wrappers::find_results(invocation.args);
    found
        .iter()
        .find_map(|path| invocation.is_broad(&path.text))
        .map(|description| format!("it deletes {description}"))
}

/// Detects `rsync --delete` with a broad path, such as `/` or the workspace, as its destination.
pub(super) fn rsync_delete(invocation: &Invocation<'_>) -> Option<String> {
    if invocation.name != "rsync" || !invocation.texts().any(|arg| arg.starts_with("--del")) {
        return None;
    }
    let description = invocation.is_broad(invocation.operands().last()?)?;
    Some(format!("it deletes files that the source does not have from {description}"))
}
