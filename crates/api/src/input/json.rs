//! A strict JSON parser. It rejects objects with duplicate keys. Most parsers accept them and silently use the last
//! value.

use std::fmt;

use herm_types::{Error, ErrorCode};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::field_errors::{FieldErrors, quote_if_empty};

/// Parses a JSON text. Values may be nested up to 128 levels deep, which is the limit of `serde_json`.
///
/// # Errors
/// `validation_error`: the text is not valid JSON (the message contains the line and column), or an object has
/// duplicate keys (each of them is listed as a field error).
pub(super) fn parse(text: &[u8]) -> Result<Value, Error> {
    let mut errors = FieldErrors::default();
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Node { path: &Path::Root, errors: &mut errors }.deserialize(&mut deserializer);
    let value = value.and_then(|value| deserializer.end().map(|()| value)).map_err(|error| {
        Error::new(ErrorCode::ValidationError, format!("The request body is not valid JSON: {error}."))
    })?;
    errors.check()?;
    Ok(value)
}

/// The path of a value in the JSON text, for field errors. It is a linked list on the stack and is formatted only if
/// there is an error, so that parsing a valid text allocates no paths.
enum Path<'p> {
    Root,
    Key(&'p Path<'p>, &'p str),
    Index(&'p Path<'p>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(Self::Root, key) => f.write_str(quote_if_empty(key)),
            Self::Key(object, key) => write!(f, "{object}.{}", quote_if_empty(key)),
            Self::Index(array, index) => write!(f, "{array}[{index}]"),
        }
    }
}

/// The state that Serde needs to deserialize one JSON value: the path of the value, and the list to which errors are
/// added.
struct Node<'n> {
    path: &'n Path<'n>,
    errors: &'n mut FieldErrors,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        loop {
            let path = Path::Index(self.path, array.len());
            match items.next_element_seed(Node { path: &path, errors: self.errors })? {
                Some(item) => array.push(item),
                None => return Ok(Value::Array(array)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            let path = Path::Key(self.path, &key);
            if object.contains_key(&key) {
                self.errors.add(path.to_string(), "duplicate key");
            }
            let value = fields.next_value_seed(Node { path: &path, errors: self.errors })?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn every_duplicate_key_is_listed() {
        let error =
            parse(br#"{"a": 1, "a": 2, "b": [{"c": 1, "d": {"e": 1, "e": 1}, "c": 2}]}"#).unwrap_err();
        let paths: Vec<&str> = error.details.iter().map(|error| error.path.as_str()).collect();
        assert_eq!(paths, ["a", "b[0].d.e", "b[0].c"]);
    }

    #[test]
    fn two_objects_may_have_the_same_key() {
        let value = parse(br#"[{"a": 1}, {"a": {"a": 1.5}}]"#).unwrap();
        assert_eq!(value, json!([{"a": 1}, {"a": {"a": 1.5}}]));
    }

    #[test]
    fn invalid_json_is_rejected_with_its_position() {
        let error = parse(b"[1,\n  2,]").unwrap_err();
        assert!(error.message.contains("line 2 column"), "{}", error.message);
        assert!(parse(b"{} {}").unwrap_err().message.contains("trailing"));
        assert!(parse(b"\"\xff\"").is_err(), "not UTF-8");
    }

    #[test]
    fn nesting_is_limited() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse(nested(100).as_bytes()).is_ok());
        let error = parse(nested(100_000).as_bytes()).unwrap_err();
        assert!(error.message.contains("recursion limit"), "{}", error.message);
    }

    proptest! {
        /// The parser accepts exactly the texts that `serde_json` accepts, except those with duplicate keys.
        #[test]
        fn parsing_agrees_with_serde_json(text in r#"[\[\]{}:,"a1e.\-0 \\ut]{0,40}"#) {
            match (parse(text.as_bytes()), serde_json::from_str::<Value>(&text)) {
                (Ok(ours), Ok(theirs)) => prop_assert_eq!(ours, theirs),
                (Err(error), Ok(_)) => prop_assert!(!error.details.is_empty()),
                (Ok(_), Err(error)) => prop_assert!(false, "{}: {}", text, error),
                (Err(_), Err(_)) => {}
            }
        }
    }
}
