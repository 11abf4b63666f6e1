//! Checks the first words of all comments in the project.
//!
//! A comment should name its subject first. A comment that begins with a relative word, for example "What the caller
//! gets" or "Whether it ended", names no subject and must be read twice. This check finds such beginnings, not every
//! unclear sentence.

#![cfg(test)]

use std::fs;
use std::path::{Path, PathBuf};

/// Words with which no comment should begin.
const RELATIVE_WORDS: &[&str] = &["What", "Who", "Whose", "Whether", "Where", "Whatever", "Whoever", "As"];

/// The test fails if at least this percentage of all comments begins with one of the [`RELATIVE_WORDS`].
const MAX_PERCENT: usize = 1;

/// The minimum number of comments in the whole project. If the test finds fewer, its search for comments is broken.
const MIN_COMMENTS: usize = 2_500;

/// Files and directories that are generated or third-party code.
const SKIPPED: &[&str] = &["target", "node_modules", "dist", ".git", "openapi.ts"];

#[test]
fn comments_begin_with_their_subject() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    for directory in ["crates", "e2e", "benches", "sdk/typescript"] {
        collect_sources(&root.join(directory), &mut files);
    }
    let (mut count, mut relative) = (0, Vec::new());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for (line, comment) in comments(&text) {
            count += 1;
            if begins_with_relative_word(&comment) {
                relative.push(format!("{}:{line}: {comment}", file.display()));
            }
        }
    }
    assert!(count >= MIN_COMMENTS, "found only {count} comments");
    assert!(
        relative.len() * 100 < count * MAX_PERCENT,
        "{} of {count} comments begin with one of {RELATIVE_WORDS:?}; name the subject first:\n{}",
        relative.len(),
        relative.join("\n")
    );
}

#[test]
fn a_block_of_comment_lines_is_one_comment() {
    let text = "/// What it is.\n/// As a sentence.\nfn a() {} // Whether\n// Returns.\n/** Who it is. */\n/*\n * Where.\n */";
    let found = comments(text);
    let firsts: Vec<_> = found.iter().map(|(line, comment)| (*line, comment.as_str())).collect();
    assert_eq!(firsts, [(1, "What it is."), (4, "Returns."), (5, "Who it is. */"), (7, "Where.")]);
    let relative = found.iter().filter(|(_, comment)| begins_with_relative_word(comment)).count();
    assert_eq!(relative, 3);
    assert!(!begins_with_relative_word("Assets of the console."));
}

/// Adds all Rust and TypeScript source files in `directory` and its subdirectories to `files`.
fn collect_sources(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let (path, name) = (entry.path(), entry.file_name());
        if SKIPPED.iter().any(|skipped| name == *skipped) {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            collect_sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "ts") {
            files.push(path);
        }
    }
}

/// Returns the first line of each comment, with its line number. Comments that follow code on the same line are
/// omitted.
fn comments(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut style_before = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        let style = ["//", "/*", "* ", "*/"].into_iter().find(|start| line.starts_with(start));
        let continues = matches!(
            (style_before, style),
            (Some("//"), Some("//")) | (Some("/*" | "* "), Some("* " | "*/"))
        );
        let words = line.trim_start_matches(['/', '!', '*']).trim();
        if style == Some("/*") && words.is_empty() {
            // The first line of this block comment contains no text, so the next line counts as its beginning.
            style_before = None;
            continue;
        }
        if style.is_some_and(|style| style != "*/") && !continues {
            found.push((index + 1, words.to_owned()));
        }
        style_before = style;
    }
    found
}

fn begins_with_relative_word(comment: &str) -> bool {
    let first = comment.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    RELATIVE_WORDS.contains(&first)
}
