//! Parsing of `SKILL.md` files: YAML front matter with `name` and `description`, then Markdown (the Agent
//! Skills format).

use serde::Deserialize;

/// The maximum size of a `SKILL.md`, in bytes. A larger document is not a valid skill.
pub const MAX_SKILL_BYTES: usize = 256 * 1024;
/// The maximum size of the front matter of a `SKILL.md`, in bytes. A larger front matter is invalid.
const MAX_FRONT_MATTER_BYTES: usize = 16 * 1024;
/// The maximum length of a skill's name, in characters. A longer name is invalid.
const MAX_NAME_CHARS: usize = 64;
/// The maximum length of a skill's description, in characters. A longer description is invalid.
const MAX_DESCRIPTION_CHARS: usize = 1024;

/// The error for a document that is not a valid skill. The message says what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidSkill {
    #[error("SKILL.md must be at most {MAX_SKILL_BYTES} bytes")]
    TooLarge,
    #[error("SKILL.md must be UTF-8 text")]
    NotText,
    #[error("SKILL.md has no front matter: the first line must be `---`, and another line `---` must follow")]
    NoFrontMatter,
    #[error("the front matter must be at most {MAX_FRONT_MATTER_BYTES} bytes")]
    FrontMatterTooLarge,
    #[error("the front matter must be YAML with the strings `name` and `description`: {0}")]
    Yaml(String),
    #[error("the front matter has no `{0}`")]
    Missing(&'static str),
    #[error("`{field}` in the front matter must be at most {max} characters")]
    TooLong { field: &'static str, max: usize },
}

/// The YAML front matter of a `SKILL.md`. Unknown fields are ignored, because other programs may use them.
#[derive(Deserialize)]
struct FrontMatter {
    name: Option<String>,
    description: Option<String>,
}

/// Returns the description in the front matter of a `SKILL.md`. Fails if the document is not a valid skill.
pub(crate) fn description_of(bytes: &[u8]) -> Result<String, InvalidSkill> {
    if bytes.len() > MAX_SKILL_BYTES {
        return Err(InvalidSkill::TooLarge);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| InvalidSkill::NotText)?;
    if text.contains('\0') {
        return Err(InvalidSkill::NotText);
    }
    let yaml = front_matter(text.trim_start_matches('\u{feff}')).ok_or(InvalidSkill::NoFrontMatter)?;
    if yaml.len() > MAX_FRONT_MATTER_BYTES {
        return Err(InvalidSkill::FrontMatterTooLarge);
    }
    let read: Option<FrontMatter> =
        yaml_serde::from_str(&yaml).map_err(|error| InvalidSkill::Yaml(error.to_string()))?;
    let (name, description) = read.map_or((None, None), |read| (read.name, read.description));
    check_field("name", name, MAX_NAME_CHARS)?;
    check_field("description", description, MAX_DESCRIPTION_CHARS)
}

fn check_field(field: &'static str, text: Option<String>, max: usize) -> Result<String, InvalidSkill> {
    let text = text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let text = text.ok_or(InvalidSkill::Missing(field))?;
    if text.chars().count() > max { Err(InvalidSkill::TooLong { field, max }) } else { Ok(text) }
}

/// Returns the front matter: the lines between the first line, which must be `---`, and the next line that is
/// `---`. Returns `None` if one of the two is missing.
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
    fn the_description_is_read_from_the_front_matter() {
        let text =
            "---\nname: reports\ndescription: >\n  How reports\n  are made.\nlicense: MIT\n---\n# Reports\n";
        assert_eq!(description_of(text.as_bytes()).unwrap(), "How reports are made.");
        let windows = "\u{feff}---\r\nname: a\r\ndescription: b\r\n---\r\n";
        assert_eq!(description_of(windows.as_bytes()).unwrap(), "b");
    }

    #[test]
    fn an_invalid_skill_is_rejected_with_a_reason() {
        let long = format!("---\nname: {}\ndescription: b\n---\n", "n".repeat(65));
        let described = format!("---\nname: a\ndescription: {}\n---\n", "d".repeat(1025));
        for (text, error) in [
            ("# Title\n", InvalidSkill::NoFrontMatter),
            ("---\nname: a\n", InvalidSkill::NoFrontMatter),
            ("", InvalidSkill::NoFrontMatter),
            ("---\n---\n", InvalidSkill::Missing("name")),
            ("---\nname: a\n---\n", InvalidSkill::Missing("description")),
            ("---\nname: ' '\ndescription: b\n---\n", InvalidSkill::Missing("name")),
            (long.as_str(), InvalidSkill::TooLong { field: "name", max: 64 }),
            (described.as_str(), InvalidSkill::TooLong { field: "description", max: 1024 }),
        ] {
            assert_eq!(description_of(text.as_bytes()), Err(error), "{text:?}");
        }
        for yaml in ["- a", "name: [a]", "name: a\nname: b", ": :", "name: 'a", "name: {a: b}", "\tname: a"] {
            let read = description_of(format!("---\n{yaml}\n---\n").as_bytes());
            assert!(matches!(read, Err(InvalidSkill::Yaml(_))), "{yaml:?}: {read:?}");
        }
        assert_eq!(description_of(b"---\nname: \xff\n---\n"), Err(InvalidSkill::NotText));
        assert_eq!(description_of(&vec![b'a'; MAX_SKILL_BYTES + 1]), Err(InvalidSkill::TooLarge));
    }

    /// This short document would expand to billions of YAML entries if every alias were resolved.
    #[test]
    fn nested_yaml_aliases_are_rejected() {
        let mut yaml = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let previous = level - 1;
            let list = format!("*a{previous}, ").repeat(10);
            yaml.push_str(&format!("a{level}: &a{level} [{}]\n", list.trim_end_matches(", ")));
        }
        let read = description_of(format!("---\n{yaml}name: *a11\n---\n").as_bytes());
        assert!(matches!(read, Err(InvalidSkill::Yaml(_))), "{read:?}");
    }

    proptest! {
        #[test]
        fn parsing_any_bytes_does_not_panic(bytes: Vec<u8>, yaml: String) {
            let _ = description_of(&bytes);
            let _ = description_of(format!("---\n{yaml}\n---\n").as_bytes());
        }
    }
}
