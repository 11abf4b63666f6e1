//! A SKILL.md: YAML front matter with `name` and `description`, then Markdown (the Agent Skills format).

use serde::Deserialize;

/// Bytes of a SKILL.md.
pub const MAX_SKILL_BYTES: usize = 256 * 1024;
/// Bytes of its front matter.
const MAX_FRONT_MATTER_BYTES: usize = 16 * 1024;
/// Characters of a skill's name, and of its description.
const MAX_NAME_CHARS: usize = 64;
const MAX_DESCRIPTION_CHARS: usize = 1024;

/// Why a document is no skill.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("it is larger than {MAX_SKILL_BYTES} bytes")]
    TooLarge,
    #[error("it is not UTF-8 text")]
    NotText,
    #[error("it has no front matter: its first line must be ---, and another --- must follow")]
    NoFrontMatter,
    #[error("its front matter is larger than {MAX_FRONT_MATTER_BYTES} bytes")]
    FrontMatterTooLarge,
    #[error("its front matter is not YAML with texts for name and description: {0}")]
    Yaml(String),
    #[error("its front matter has no {0}")]
    Missing(&'static str),
    #[error("its {field} has more than {most} characters")]
    TooLong { field: &'static str, most: usize },
}

/// Fields that are not known are for others.
#[derive(Deserialize)]
struct FrontMatter {
    name: Option<String>,
    description: Option<String>,
}

/// The description that a SKILL.md gives of itself.
pub(crate) fn description_of(bytes: &[u8]) -> Result<String, Invalid> {
    if bytes.len() > MAX_SKILL_BYTES {
        return Err(Invalid::TooLarge);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Invalid::NotText)?;
    if text.contains('\0') {
        return Err(Invalid::NotText);
    }
    let yaml = front_matter(text.trim_start_matches('\u{feff}')).ok_or(Invalid::NoFrontMatter)?;
    if yaml.len() > MAX_FRONT_MATTER_BYTES {
        return Err(Invalid::FrontMatterTooLarge);
    }
    let read: Option<FrontMatter> =
        yaml_serde::from_str(&yaml).map_err(|error| Invalid::Yaml(error.to_string()))?;
    let (name, description) = read.map_or((None, None), |read| (read.name, read.description));
    check("name", name, MAX_NAME_CHARS)?;
    check("description", description, MAX_DESCRIPTION_CHARS)
}

fn check(field: &'static str, text: Option<String>, most: usize) -> Result<String, Invalid> {
    let text = text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let text = text.ok_or(Invalid::Missing(field))?;
    if text.chars().count() > most { Err(Invalid::TooLong { field, most }) } else { Ok(text) }
}

/// The lines between the first one and the next that is `---`.
fn front_matter(text: &str) -> Option<String> {
    let mut lines = text.lines();
    if lines.next()?.trim_end() != "---" {
        return None;
    }
    let mut yaml = String::new();
    for line in lines {
        if line.trim_end() == "---" {
            return Some(yaml);
        }
        yaml.push_str(line);
        yaml.push('\n');
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_skill_gives_its_description() {
        let text =
            "---\nname: reports\ndescription: >\n  How reports\n  are made.\nlicense: MIT\n---\n# Reports\n";
        assert_eq!(description_of(text.as_bytes()).unwrap(), "How reports are made.");
        let windows = "\u{feff}---\r\nname: a\r\ndescription: b\r\n---\r\n";
        assert_eq!(description_of(windows.as_bytes()).unwrap(), "b");
    }

    #[test]
    fn what_is_no_skill_says_why() {
        let long = format!("---\nname: {}\ndescription: b\n---\n", "n".repeat(65));
        let described = format!("---\nname: a\ndescription: {}\n---\n", "d".repeat(1025));
        for (text, fault) in [
            ("# Title\n", Invalid::NoFrontMatter),
            ("---\nname: a\n", Invalid::NoFrontMatter),
            ("", Invalid::NoFrontMatter),
            ("---\n---\n", Invalid::Missing("name")),
            ("---\nname: a\n---\n", Invalid::Missing("description")),
            ("---\nname: ' '\ndescription: b\n---\n", Invalid::Missing("name")),
            (long.as_str(), Invalid::TooLong { field: "name", most: 64 }),
            (described.as_str(), Invalid::TooLong { field: "description", most: 1024 }),
        ] {
            assert_eq!(description_of(text.as_bytes()), Err(fault), "{text:?}");
        }
        for yaml in ["- a", "name: [a]", "name: a\nname: b", ": :", "name: 'a", "name: {a: b}", "\tname: a"] {
            let read = description_of(format!("---\n{yaml}\n---\n").as_bytes());
            assert!(matches!(read, Err(Invalid::Yaml(_))), "{yaml:?}: {read:?}");
        }
        assert_eq!(description_of(b"---\nname: \xff\n---\n"), Err(Invalid::NotText));
        assert_eq!(description_of(&vec![b'a'; MAX_SKILL_BYTES + 1]), Err(Invalid::TooLarge));
    }

    /// A few lines that would be billions when each alias is written out.
    #[test]
    fn aliases_do_not_blow_up() {
        let mut yaml = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let previous = level - 1;
            let list = format!("*a{previous}, ").repeat(10);
            yaml.push_str(&format!("a{level}: &a{level} [{}]\n", list.trim_end_matches(", ")));
        }
        let read = description_of(format!("---\n{yaml}name: *a11\n---\n").as_bytes());
        assert!(matches!(read, Err(Invalid::Yaml(_))), "{read:?}");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, yaml: String) {
            let _ = description_of(&bytes);
            let _ = description_of(format!("---\n{yaml}\n---\n").as_bytes());
        }
    }
}
