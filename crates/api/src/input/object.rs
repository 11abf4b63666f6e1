//! A JSON object, read field by field: what is missing, wrong or unknown becomes a fault with its path.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::Faults;

/// What a body says of a field.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Given<'v> {
    Absent,
    Null,
    Value(&'v Value),
}

/// An object of a body. Every field is asked for once; [`Object::finish`] finds those nobody asked for.
pub(crate) struct Object<'v> {
    path: String,
    map: Option<&'v Map<String, Value>>,
    known: Vec<&'static str>,
}

impl<'v> Object<'v> {
    /// The whole body as an object.
    pub(crate) fn of_body(body: &'v Value, faults: &mut Faults) -> Self {
        if !body.is_object() {
            faults.add("", "the body must be a JSON object");
        }
        Self { path: String::new(), map: body.as_object(), known: Vec::new() }
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The field's value; `null` counts as not given.
    fn field(&mut self, name: &'static str) -> Option<&'v Value> {
        self.known.push(name);
        self.map?.get(name).filter(|value| !value.is_null())
    }

    /// A text of so many characters, if it is given.
    pub(crate) fn text(
        &mut self,
        name: &'static str,
        chars: RangeInclusive<usize>,
        faults: &mut Faults,
    ) -> Option<String> {
        let path = self.path_of(name);
        let value = self.field(name)?;
        let Some(text) = value.as_str() else {
            faults.add(path, "must be a string");
            return None;
        };
        let count = text.chars().count();
        if !chars.contains(&count) {
            let (least, most) = (chars.start(), chars.end());
            faults.add(path, format!("must have {least} to {most} characters, not {count}"));
            return None;
        }
        if text.contains('\0') {
            faults.add(path, "must not contain the character U+0000");
            return None;
        }
        Some(text.to_owned())
    }

    /// The same, and a fault if it is not given.
    pub(crate) fn required_text(
        &mut self,
        name: &'static str,
        chars: RangeInclusive<usize>,
        faults: &mut Faults,
    ) -> Option<String> {
        if self.map.is_some() && !self.is_given(name) {
            self.known.push(name);
            faults.add(self.path_of(name), "is required");
            return None;
        }
        self.text(name, chars, faults)
    }

    pub(crate) fn boolean(&mut self, name: &'static str, default: bool, faults: &mut Faults) -> bool {
        self.optional_boolean(name, faults).unwrap_or(default)
    }

    /// A truth value, if it is given.
    pub(crate) fn optional_boolean(&mut self, name: &'static str, faults: &mut Faults) -> Option<bool> {
        let path = self.path_of(name);
        let value = self.field(name)?;
        if !value.is_boolean() {
            faults.add(path, "must be true or false");
        }
        value.as_bool()
    }

    /// One of a few texts, if it is given.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        name: &'static str,
        choices: &[(&str, T)],
        faults: &mut Faults,
    ) -> Option<T> {
        let path = self.path_of(name);
        let value = self.field(name)?;
        let chosen = choices.iter().find(|(text, _)| value.as_str() == Some(text)).map(|(_, chosen)| *chosen);
        if chosen.is_none() {
            let texts: Vec<&str> = choices.iter().map(|(text, _)| *text).collect();
            faults.add(path, format!("must be one of: {}", texts.join(", ")));
        }
        chosen
    }

    /// The same, and a fault if it is not given.
    pub(crate) fn required_choice<T: Copy>(
        &mut self,
        name: &'static str,
        choices: &[(&str, T)],
        faults: &mut Faults,
    ) -> Option<T> {
        if self.map.is_some() && !self.is_given(name) {
            self.known.push(name);
            faults.add(self.path_of(name), "is required");
            return None;
        }
        self.choice(name, choices, faults)
    }

    /// Whether a field is there and is not `null`.
    pub(crate) fn is_given(&self, name: &str) -> bool {
        self.map.is_some_and(|map| map.get(name).is_some_and(|value| !value.is_null()))
    }

    /// A text that reads itself, if it is given.
    pub(crate) fn parsed<T: FromStr<Err: Display>>(
        &mut self,
        name: &'static str,
        faults: &mut Faults,
    ) -> Option<T> {
        let path = self.path_of(name);
        let value = self.field(name)?;
        let Some(text) = value.as_str() else {
            faults.add(path, "must be a string");
            return None;
        };
        text.parse().map_err(|error: T::Err| faults.add(path, error.to_string())).ok()
    }

    /// A whole number within bounds, if it is given.
    pub(crate) fn whole_number(
        &mut self,
        name: &'static str,
        bounds: RangeInclusive<u32>,
        faults: &mut Faults,
    ) -> Option<u32> {
        let path = self.path_of(name);
        let value = self.field(name)?;
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        let number = number.filter(|number| bounds.contains(number));
        if number.is_none() {
            faults.add(path, format!("must be a whole number from {} to {}", bounds.start(), bounds.end()));
        }
        number
    }

    /// A list of at most `most` texts that `read` makes something of, each once, if it is given. `None` too if one
    /// cannot be read.
    pub(crate) fn list<T: PartialEq>(
        &mut self,
        name: &'static str,
        most: usize,
        read: impl Fn(&str) -> Result<T, String>,
        faults: &mut Faults,
    ) -> Option<Vec<T>> {
        let path = self.path_of(name);
        let value = self.field(name)?;
        let Some(items) = value.as_array() else {
            faults.add(path, "must be a list of strings");
            return None;
        };
        if items.len() > most {
            faults.add(path, format!("must have at most {most} items, not {}", items.len()));
            return None;
        }
        let (mut list, mut is_whole) = (Vec::new(), true);
        for (index, item) in items.iter().enumerate() {
            match item.as_str().ok_or_else(|| "must be a string".to_owned()).and_then(&read) {
                Ok(read) if list.contains(&read) => {}
                Ok(read) => list.push(read),
                Err(message) => {
                    faults.add(format!("{path}[{index}]"), message);
                    is_whole = false;
                }
            }
        }
        is_whole.then_some(list)
    }

    /// Adds a fault unless the field is given, whatever it holds.
    pub(crate) fn require(&self, name: &str, faults: &mut Faults) {
        if self.map.is_some_and(|map| map.get(name).is_none_or(Value::is_null)) {
            faults.add(self.path_of(name), "is required");
        }
    }

    /// An object within; an empty one if it is not given.
    pub(crate) fn object(&mut self, name: &'static str, faults: &mut Faults) -> Self {
        let path = self.path_of(name);
        let value = self.field(name);
        if value.is_some_and(|value| !value.is_object()) {
            faults.add(path.clone(), "must be an object");
        }
        Self { path, map: value.and_then(Value::as_object), known: Vec::new() }
    }

    /// A field as it is given: `null` may mean something else than nothing.
    pub(crate) fn given(&mut self, name: &'static str) -> Given<'v> {
        self.known.push(name);
        match self.map.and_then(|map| map.get(name)) {
            None => Given::Absent,
            Some(Value::Null) => Given::Null,
            Some(value) => Given::Value(value),
        }
    }

    /// A list of objects, if it is given; `null` is an empty one.
    pub(crate) fn objects(
        &mut self,
        name: &'static str,
        most: usize,
        faults: &mut Faults,
    ) -> Option<Vec<Object<'v>>> {
        let path = self.path_of(name);
        let items = match self.given(name) {
            Given::Absent => return None,
            Given::Null => return Some(Vec::new()),
            Given::Value(Value::Array(items)) => items,
            Given::Value(_) => {
                faults.add(path, "must be an array of objects");
                return None;
            }
        };
        if items.len() > most {
            faults.add(path, format!("must have at most {most} items, not {}", items.len()));
            return None;
        }
        let objects = items.iter().enumerate().map(|(index, item)| {
            let path = format!("{path}[{index}]");
            if !item.is_object() {
                faults.add(path.clone(), "must be an object");
            }
            Object { path, map: item.as_object(), known: Vec::new() }
        });
        Some(objects.collect())
    }

    /// A list of texts, if it is given; `null` is `Some(None)`.
    pub(crate) fn texts(
        &mut self,
        name: &'static str,
        most: usize,
        faults: &mut Faults,
    ) -> Option<Option<Vec<String>>> {
        let path = self.path_of(name);
        let items = match self.given(name) {
            Given::Absent => return None,
            Given::Null => return Some(None),
            Given::Value(Value::Array(items)) => items,
            Given::Value(_) => {
                faults.add(path, "must be an array of strings");
                return None;
            }
        };
        if items.len() > most {
            faults.add(path, format!("must have at most {most} items, not {}", items.len()));
            return None;
        }
        let mut texts = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            match item.as_str() {
                Some(text) => texts.push(text.to_owned()),
                None => faults.add(format!("{path}[{index}]"), "must be a string"),
            }
        }
        Some(Some(texts))
    }

    /// Where a field of this object is, for a fault.
    pub(crate) fn path_to(&self, name: &str) -> String {
        self.path_of(name)
    }

    /// Whether there is an object at all: if not, that was found before.
    pub(crate) fn is_there(&self) -> bool {
        self.map.is_some()
    }

    /// Finds the fields that nobody asked for.
    pub(crate) fn finish(self, faults: &mut Faults) {
        for name in self.map.into_iter().flat_map(Map::keys) {
            if !self.known.contains(&name.as_str()) {
                faults.add(self.path_of(name), "is not a known field");
            }
        }
    }
}
