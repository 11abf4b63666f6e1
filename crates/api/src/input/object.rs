//! Reads a JSON object field by field. For each missing, invalid or unknown field, it adds a field error with the path
//! of the field.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use herm_types::Error;
use serde_json::{Map, Value};

use super::field_errors::{FieldErrors, quote_if_empty};

/// The value of a field. Unlike an `Option`, it distinguishes an absent field from an explicit `null`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FieldValue<'v> {
    Absent,
    Null,
    Value(&'v Value),
}

/// A JSON object in a request body. The caller reads every known field and then calls [`Object::finish`], which reports
/// all other fields as unknown.
pub(crate) struct Object<'v> {
    path: String,
    map: Option<&'v Map<String, Value>>,
    known_fields: Vec<&'static str>,
}

impl<'v> Object<'v> {
    /// Creates an `Object` from a request body. Adds an error if the body is not a JSON object.
    pub(crate) fn from_body(body: &'v Value, errors: &mut FieldErrors) -> Self {
        if !body.is_object() {
            errors.add("", "must be a JSON object");
        }
        Self { path: String::new(), map: body.as_object(), known_fields: Vec::new() }
    }

    /// Returns the path of the field `name` of this object, for a field error.
    pub(crate) fn path_to(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Returns the value of a field, or `None` if the field is absent or `null`.
    fn field(&mut self, name: &'static str) -> Option<&'v Value> {
        self.known_fields.push(name);
        self.map?.get(name).filter(|value| !value.is_null())
    }

    /// Reads an optional string. `chars` is the allowed range of its length, in characters.
    pub(crate) fn string(
        &mut self,
        name: &'static str,
        chars: RangeInclusive<usize>,
        errors: &mut FieldErrors,
    ) -> Option<String> {
        let path = self.path_to(name);
        let value = self.field(name)?;
        let Some(text) = value.as_str() else {
            errors.add(path, "must be a string");
            return None;
        };
        let count = text.chars().count();
        if !chars.contains(&count) {
            let (min, max) = (chars.start(), chars.end());
            errors.add(path, format!("must be {min} to {max} characters long, but has {count}"));
            return None;
        }
        if text.contains('\0') {
            errors.add(path, "must not contain the character U+0000");
            return None;
        }
        Some(text.to_owned())
    }

    /// Reads a required string. `chars` is the allowed range of its length, in characters.
    pub(crate) fn required_string(
        &mut self,
        name: &'static str,
        chars: RangeInclusive<usize>,
        errors: &mut FieldErrors,
    ) -> Option<String> {
        if self.map.is_some() && !self.has(name) {
            self.known_fields.push(name);
            errors.add(self.path_to(name), "is required");
            return None;
        }
        self.string(name, chars, errors)
    }

    /// Reads an optional boolean. Returns `default` if the field is absent, `null` or invalid.
    pub(crate) fn boolean(&mut self, name: &'static str, default: bool, errors: &mut FieldErrors) -> bool {
        self.optional_boolean(name, errors).unwrap_or(default)
    }

    /// Reads an optional boolean. Returns `None` if the field is absent, `null` or invalid.
    pub(crate) fn optional_boolean(&mut self, name: &'static str, errors: &mut FieldErrors) -> Option<bool> {
        let path = self.path_to(name);
        let value = self.field(name)?;
        if !value.is_boolean() {
            errors.add(path, "must be `true` or `false`");
        }
        value.as_bool()
    }

    /// Reads an optional string that must be one of `choices`, which are pairs of an allowed string and a value.
    /// Returns the value that belongs to the string.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        name: &'static str,
        choices: &[(&str, T)],
        errors: &mut FieldErrors,
    ) -> Option<T> {
        let path = self.path_to(name);
        let value = self.field(name)?;
        let chosen = choices.iter().find(|(text, _)| value.as_str() == Some(text)).map(|(_, chosen)| *chosen);
        if chosen.is_none() {
            let texts: Vec<&str> = choices.iter().map(|(text, _)| *text).collect();
            errors.add(path, format!("must be one of: `{}`", texts.join("`, `")));
        }
        chosen
    }

    /// Reads a required string that must be one of `choices`, which are pairs of an allowed string and a value. Returns
    /// the value that belongs to the string.
    pub(crate) fn required_choice<T: Copy>(
        &mut self,
        name: &'static str,
        choices: &[(&str, T)],
        errors: &mut FieldErrors,
    ) -> Option<T> {
        if self.map.is_some() && !self.has(name) {
            self.known_fields.push(name);
            errors.add(self.path_to(name), "is required");
            return None;
        }
        self.choice(name, choices, errors)
    }

    /// Returns true if the field is present and not `null`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.map.is_some_and(|map| map.get(name).is_some_and(|value| !value.is_null()))
    }

    /// Reads an optional string and parses it with `FromStr`. If parsing fails, the parser's error message becomes the
    /// message of the field error.
    pub(crate) fn parsed<T: FromStr<Err: Display>>(
        &mut self,
        name: &'static str,
        errors: &mut FieldErrors,
    ) -> Option<T> {
        let path = self.path_to(name);
        let value = self.field(name)?;
        let Some(text) = value.as_str() else {
            errors.add(path, "must be a string");
            return None;
        };
        text.parse().map_err(|error: T::Err| errors.add(path, error.to_string())).ok()
    }

    /// Reads an optional integer, which must be within `bounds`.
    pub(crate) fn integer(
        &mut self,
        name: &'static str,
        bounds: RangeInclusive<u32>,
        errors: &mut FieldErrors,
    ) -> Option<u32> {
        let path = self.path_to(name);
        let value = self.field(name)?;
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        let number = number.filter(|number| bounds.contains(number));
        if number.is_none() {
            errors.add(path, format!("must be an integer from {} to {}", bounds.start(), bounds.end()));
        }
        number
    }

    /// Reads an optional array of at most `max` strings and parses each string with `parse`. Duplicates are dropped.
    /// Returns `None` if the field is absent, `null` or invalid.
    pub(crate) fn parsed_list<T: PartialEq>(
        &mut self,
        name: &'static str,
        max: usize,
        parse: impl Fn(&str) -> Result<T, String>,
        errors: &mut FieldErrors,
    ) -> Option<Vec<T>> {
        let path = self.path_to(name);
        let value = self.field(name)?;
        let Some(items) = value.as_array() else {
            errors.add(path, "must be an array of strings");
            return None;
        };
        if items.len() > max {
            errors.add(path, format!("must have at most {max} items, but has {}", items.len()));
            return None;
        }
        let (mut list, mut is_valid) = (Vec::new(), true);
        for (index, item) in items.iter().enumerate() {
            match item.as_str().ok_or_else(|| "must be a string".to_owned()).and_then(&parse) {
                Ok(item) if list.contains(&item) => {}
                Ok(item) => list.push(item),
                Err(message) => {
                    errors.add(format!("{path}[{index}]"), message);
                    is_valid = false;
                }
            }
        }
        is_valid.then_some(list)
    }

    /// Adds an error if the field is absent or `null`. Does not check the type of the value.
    pub(crate) fn require(&self, name: &str, errors: &mut FieldErrors) {
        if self.map.is_some_and(|map| map.get(name).is_none_or(Value::is_null)) {
            errors.add(self.path_to(name), "is required");
        }
    }

    /// Reads an optional nested object. If the field is absent, `null` or invalid, returns an object in which all
    /// fields are absent.
    pub(crate) fn object(&mut self, name: &'static str, errors: &mut FieldErrors) -> Self {
        let path = self.path_to(name);
        let value = self.field(name);
        if value.is_some_and(|value| !value.is_object()) {
            errors.add(path.clone(), "must be an object");
        }
        Self { path, map: value.and_then(Value::as_object), known_fields: Vec::new() }
    }

    /// Returns the value of a field. Unlike the other methods, distinguishes an explicit `null` from an absent field.
    pub(crate) fn field_value(&mut self, name: &'static str) -> FieldValue<'v> {
        self.known_fields.push(name);
        match self.map.and_then(|map| map.get(name)) {
            None => FieldValue::Absent,
            Some(Value::Null) => FieldValue::Null,
            Some(value) => FieldValue::Value(value),
        }
    }

    /// Reads an optional array of at most `max` objects. Returns `None` if the field is absent or invalid, and an empty
    /// list if it is `null`.
    pub(crate) fn objects(
        &mut self,
        name: &'static str,
        max: usize,
        errors: &mut FieldErrors,
    ) -> Option<Vec<Object<'v>>> {
        let path = self.path_to(name);
        let items = match self.field_value(name) {
            FieldValue::Absent => return None,
            FieldValue::Null => return Some(Vec::new()),
            FieldValue::Value(Value::Array(items)) => items,
            FieldValue::Value(_) => {
                errors.add(path, "must be an array of objects");
                return None;
            }
        };
        if items.len() > max {
            errors.add(path, format!("must have at most {max} items, but has {}", items.len()));
            return None;
        }
        let objects = items.iter().enumerate().map(|(index, item)| {
            let path = format!("{path}[{index}]");
            if !item.is_object() {
                errors.add(path.clone(), "must be an object");
            }
            Object { path, map: item.as_object(), known_fields: Vec::new() }
        });
        Some(objects.collect())
    }

    /// Reads an optional array of at most `max` strings. Returns `None` if the field is absent or invalid, and
    /// `Some(None)` if it is `null`.
    pub(crate) fn strings(
        &mut self,
        name: &'static str,
        max: usize,
        errors: &mut FieldErrors,
    ) -> Option<Option<Vec<String>>> {
        let path = self.path_to(name);
        let items = match self.field_value(name) {
            FieldValue::Absent => return None,
            FieldValue::Null => return Some(None),
            FieldValue::Value(Value::Array(items)) => items,
            FieldValue::Value(_) => {
                errors.add(path, "must be an array of strings");
                return None;
            }
        };
        if items.len() > max {
            errors.add(path, format!("must have at most {max} items, but has {}", items.len()));
            return None;
        }
        let mut texts = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            match item.as_str() {
                Some(text) => texts.push(text.to_owned()),
                None => errors.add(format!("{path}[{index}]"), "must be a string"),
            }
        }
        Some(Some(texts))
    }

    /// Returns true if this `Object` was created from a JSON object. If not, the value was absent or of another type,
    /// and its fields should not be reported as missing.
    pub(crate) fn is_object(&self) -> bool {
        self.map.is_some()
    }

    /// Adds an error for each field that the caller has not read. Such a field is unknown to the operation.
    pub(crate) fn finish(self, errors: &mut FieldErrors) {
        for name in self.map.into_iter().flat_map(Map::keys) {
            if !self.known_fields.contains(&name.as_str()) {
                errors.add(self.path_to(quote_if_empty(name)), "unknown field");
            }
        }
    }
}

/// Checks the body of an operation that takes no fields: it must be absent or an empty object.
///
/// # Errors
/// `validation_error`, which lists every field of the body as unknown.
pub(crate) fn no_fields(body: Option<&Value>) -> Result<(), Error> {
    let mut errors = FieldErrors::default();
    if let Some(body) = body {
        Object::from_body(body, &mut errors).finish(&mut errors);
    }
    errors.check()
}

#[cfg(test)]
mod tests {
    use herm_types::FieldError;

    use super::*;
    use crate::input::json;

    fn message(body: &str) -> String {
        let result = json::parse(body.as_bytes()).and_then(|body| no_fields(Some(&body)));
        result.unwrap_err().message
    }

    #[test]
    fn an_error_of_the_whole_body_reads_as_a_sentence() {
        assert_eq!(message("[]"), "The request body must be a JSON object.");
        let error = |path: &str| FieldError::new(path, "must be a JSON object");
        let several = Error::invalid(vec![error(""), error("a"), error("b")]);
        assert_eq!(several.message, "The request body must be a JSON object (and 2 more).");
    }

    #[test]
    fn an_empty_field_name_is_shown_in_quotes() {
        assert_eq!(message(r#"{"": 1}"#), "\"\": unknown field");
        assert_eq!(message(r#"{"a": {"": 1, "": 2}}"#), "a.\"\": duplicate key");
    }
}
