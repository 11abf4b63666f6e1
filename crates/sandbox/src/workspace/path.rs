//! Paths within a workspace.

/// Bytes of a path at most.
const MAX_PATH_BYTES: usize = 4096;
/// Bytes of one name at most.
const MAX_NAME_BYTES: usize = 255;
/// Directories that a path may go down at most.
const MAX_DEPTH: usize = 64;

/// A path that stays within its workspace by its text alone. Symbolic links are the kernel's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkspacePath(String);

/// Why a text is not a path within a workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("a path is relative to the workspace; leave out the / at its beginning")]
    Absolute,
    #[error("a path must not contain ..")]
    Parent,
    #[error("a path must not contain the character U+0000")]
    Nul,
    #[error(
        "a path has at most {MAX_PATH_BYTES} bytes, {MAX_DEPTH} levels and {MAX_NAME_BYTES} bytes in each"
    )]
    TooLong,
}

impl WorkspacePath {
    /// Reads a path; empty and `.` are the workspace itself. `./` and doubled or trailing slashes are dropped.
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

    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The directory it stands in, and its name there; `None` for the workspace itself.
    pub(super) fn split(&self) -> Option<(Self, &str)> {
        if self.is_root() {
            return None;
        }
        let (parent, name) = self.0.rsplit_once('/').unwrap_or(("", &self.0));
        Some((Self(parent.to_owned()), name))
    }

    /// The path and all directories above it, the outermost first, without the workspace itself.
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
    fn paths_are_told_from_escapes() {
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
    fn a_path_knows_its_parents() {
        let path = WorkspacePath::parse("a/b/c").unwrap();
        assert_eq!(path.prefixes().map(|prefix| prefix.0).collect::<Vec<_>>(), ["a", "a/b", "a/b/c"]);
        assert_eq!(path.split().map(|(parent, name)| (parent.0, name)), Some(("a/b".to_owned(), "c")));
        assert_eq!(WorkspacePath::parse("").unwrap().prefixes().count(), 0);
    }
}
