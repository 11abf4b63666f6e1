//! JSON, read strictly: a key that is given twice is a fault, where most readers keep the last in silence.

use std::fmt;

use herm_types::{Error, ErrorCode};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::Faults;

/// Reads a whole text. Nesting is bounded by the reader, at 128 levels.
///
/// # Errors
/// `validation_error`: it is not JSON, with the line and column; or every key that an object has twice.
pub(super) fn parse(text: &[u8]) -> Result<Value, Error> {
    let mut faults = Faults::default();
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Node { path: &Path::Root, faults: &mut faults }.deserialize(&mut deserializer);
    let value = value
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| Error::new(ErrorCode::ValidationError, format!("The body is not JSON: {error}.")))?;
    faults.check()?;
    Ok(value)
}

/// Where a value stands. Written out only if something is wrong there.
enum Path<'p> {
    Root,
    Key(&'p Path<'p>, &'p str),
    Place(&'p Path<'p>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(Self::Root, key) => f.write_str(key),
            Self::Key(object, key) => write!(f, "{object}.{key}"),
            Self::Place(array, place) => write!(f, "{array}[{place}]"),
        }
    }
}

/// A value that is about to be read.
struct Node<'n> {
    path: &'n Path<'n>,
    faults: &'n mut Faults,
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
            let path = Path::Place(self.path, array.len());
            match items.next_element_seed(Node { path: &path, faults: self.faults })? {
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
                self.faults.add(path.to_string(), "is given more than once");
            }
            let value = fields.next_value_seed(Node { path: &path, faults: self.faults })?;
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
    fn every_key_that_is_given_twice_is_named() {
        let error =
            parse(br#"{"a": 1, "a": 2, "b": [{"c": 1, "d": {"e": 1, "e": 1}, "c": 2}]}"#).unwrap_err();
        let paths: Vec<&str> = error.details.iter().map(|fault| fault.path.as_str()).collect();
        assert_eq!(paths, ["a", "b[0].d.e", "b[0].c"]);
    }

    #[test]
    fn the_same_key_in_two_objects_is_fine() {
        let value = parse(br#"[{"a": 1}, {"a": {"a": 1.5}}]"#).unwrap();
        assert_eq!(value, json!([{"a": 1}, {"a": {"a": 1.5}}]));
    }

    #[test]
    fn what_is_not_json_is_told_where() {
        let error = parse(b"[1,\n  2,]").unwrap_err();
        assert!(error.message.contains("line 2 column"), "{}", error.message);
        assert!(parse(b"{} {}").unwrap_err().message.contains("trailing"));
        assert!(parse(b"\"\xff\"").is_err(), "not UTF-8");
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse(nested(100).as_bytes()).is_ok());
        let error = parse(nested(100_000).as_bytes()).unwrap_err();
        assert!(error.message.contains("recursion limit"), "{}", error.message);
    }

    proptest! {
        /// Except for the faults it finds, it reads what the library reads.
        #[test]
        fn it_reads_as_the_library_does(text in r#"[\[\]{}:,"a1e.\-0 \\ut]{0,40}"#) {
            match (parse(text.as_bytes()), serde_json::from_str::<Value>(&text)) {
                (Ok(ours), Ok(theirs)) => prop_assert_eq!(ours, theirs),
                (Err(error), Ok(_)) => prop_assert!(!error.details.is_empty()),
                (Ok(_), Err(error)) => prop_assert!(false, "{}: {}", text, error),
                (Err(_), Err(_)) => {}
            }
        }
    }
}
