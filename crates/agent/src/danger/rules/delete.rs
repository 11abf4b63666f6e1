//! Deleting more than anybody should at once.

use super::super::expand::is_partly_unknown;
use super::super::wrappers;
use super::Act;

/// `rm -r`, and `shred` of the same, on what is broad or not known.
pub(super) fn recursive(act: &Act<'_>) -> Option<String> {
    let option = |arg: &str| match arg.strip_prefix('-') {
        Some(rest) if rest.starts_with('-') => rest.len() > 3 && "-recursive".starts_with(rest),
        Some(rest) => rest.contains(['r', 'R']) || is_partly_unknown(rest),
        None => false,
    };
    let options = act.texts().take_while(|arg| *arg != "--");
    let is_sure = act.name == "rimraf" || options.clone().any(option);
    // An argument of which nothing is known may be the option.
    let may_be = act.args.iter().any(super::Text::is_unknown);
    if !matches!(act.name, "rm" | "rimraf" | "srm" | "trash") || !(is_sure || may_be) {
        return None;
    }
    let known = || act.operands().filter(|path| is_sure || !is_partly_unknown(path));
    known().find_map(|path| act.is_broad(path)).map(|what| format!("it deletes {what}"))
}

/// `find` with `-delete` or `-exec rm`, without anything that narrows it down.
pub(super) fn found(act: &Act<'_>) -> Option<String> {
    let removes = |arg: &str| matches!(arg.rsplit('/').next(), Some("rm" | "shred" | "unlink"));
    let runs = act.has(&["-exec", "-execdir", "-ok", "-okdir"]);
    if act.name != "find"
        || !(act.has(&["-delete"]) || (runs && act.texts().any(removes) && act.has(&["{}"])))
    {
        return None;
    }
    let found = wrappers::found(act.args);
    found.iter().find_map(|path| act.is_broad(&path.text)).map(|what| format!("it deletes {what}"))
}

/// `rsync --delete` into what is broad.
pub(super) fn mirrored(act: &Act<'_>) -> Option<String> {
    if act.name != "rsync" || !act.texts().any(|arg| arg.starts_with("--del")) {
        return None;
    }
    let what = act.is_broad(act.operands().last()?)?;
    Some(format!("it deletes what is not in the source from {what}"))
}
