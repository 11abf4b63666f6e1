//! Validated paths of files and directories in a workspace.

/// The maximum length of a path, in bytes.
const MAX_PATH_BYTES: usize = 4096;
/// The maximum length of each component of a path, in bytes.
const MAX_NAME_BYTES: usize = 255;
/// The maximum number of components in a path.
const MAX_DEPTH: usize = 64;

/// A path relative to the workspace directory, without `..`. Symbolic links in the path are not detected here; the
/// kernel refuses them when the path is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkspacePath(String);

/// The reason why a string is not a valid path in a workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("must be relative to the workspace; remove the leading `/`")]
    Absolute,
    #[error("must not contain the component `..`")]
    Parent,
    #[error("must not contain the character U+0000")]
    Nul,
    #[error(
        "must have at most {MAX_PATH_BYTES} bytes and {MAX_DEPTH} components, each of at most {MAX_NAME_BYTES} bytes"
    )]
    TooLong,
}

impl WorkspacePath {
    /// Parses a path. The empty string and `.` denote the root of the workspace. Each `./`, repeated slash or trailing
    /// slash is removed.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.contains('\0') {
            return Err(PathError::Nul);
        }
        if text.starts_with('/') {
            return Err(PathError::Absolute);
        }
        let names: Vec<&str> = text.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
        if names.contains(&"..") {
            return Err(PathError::Parent);
        }
        let is_long = names.len() > MAX_DEPTH || names.iter().any(|name| name.len() > MAX_NAME_BYTES);
        if is_long || text.len() > MAX_PATH_BYTES {
            return Err(PathError::TooLong);
        }
        Ok(Self(names.join("/")))
    }

    /// Returns true if the path denotes the root of the workspace.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the normalized path. It is empty for the root of the workspace.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Splits the path into its parent directory and its last component. Returns `None` for the root of the workspace.
    pub(super) fn split(&self) -> Option<(Self, &str)> {
        if self.is_root() {
            return None;
        }
        let (parent, name) = self.0.rsplit_once('/').unwrap_or(("", &self.0));
        Some((Self(parent.to_owned()), name))
    }

    /// Returns the path's parent directories, outermost first, then the path itself. The root of the workspace is not
    /// included.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = Self> + '_ {
        let ends = self.0.match_indices('/').map(|(at, _)| at).chain([self.0.len()]);
        ends.filter_map(|end| self.0.get(..end))
            .filter(|prefix| !prefix.is_empty())
            .map(|prefix| Self(prefix.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_escape_the_workspace_are_rejected() {
        let parse = |text: &str| WorkspacePath::parse(text).map(|path| path.0);
        assert_eq!(parse("a/./b//c/"), Ok("a/b/c".to_owned()));
        assert_eq!(parse(""), Ok(String::new()));
        assert_eq!(parse("."), Ok(String::new()));
        assert_eq!(parse("..."), Ok("...".to_owned()));
        assert_eq!(parse("/etc/passwd"), Err(PathError::Absolute));
        assert_eq!(parse("a/../../b"), Err(PathError::Parent));
        assert_eq!(parse(".."), Err(PathError::Parent));
        assert_eq!(parse("a\0b"), Err(PathError::Nul));
        assert_eq!(parse(&"n".repeat(256)), Err(PathError::TooLong));
        assert_eq!(parse(&"d/".repeat(65)), Err(PathError::TooLong));
    }

    #[test]
    fn a_path_returns_its_parents() {
        let path = WorkspacePath::parse("a/b/c").unwrap();
        assert_eq!(path.prefixes().map(|prefix| prefix.0).collect::<Vec<_>>(), ["a", "a/b", "a/b/c"]);
        assert_eq!(path.split().map(|(parent, name)| (parent.0, name)), Some(("a/b".to_owned(), "c")));
        assert_eq!(WorkspacePath::parse("").unwrap().prefixes().count(), 0);
    }
}
