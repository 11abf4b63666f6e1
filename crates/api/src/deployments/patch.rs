//! Reads the fields of a request body as patches of a deployment.

use herm_app::deployments::FieldPatch;
use serde_json::{Number, Value};

use crate::input::{FieldErrors, FieldValue, Object};

/// Reads an optional field as a patch. An absent field keeps the current value, `null` resets it to the default, and
/// any other value is parsed with `parse` and set. `parse` returns the new value, or the message of the field error if
/// the value is invalid.
pub(super) fn change<T>(
    object: &mut Object<'_>,
    name: &'static str,
    errors: &mut FieldErrors,
    parse: impl FnOnce(&Value) -> Result<T, String>,
) -> FieldPatch<T> {
    match object.field_value(name) {
        FieldValue::Absent => FieldPatch::Keep,
        FieldValue::Null => FieldPatch::Reset,
        FieldValue::Value(value) => match parse(value) {
            Ok(value) => FieldPatch::Set(value),
            Err(message) => {
                errors.add(object.path_to(name), message);
                FieldPatch::Keep
            }
        },
    }
}

/// Reads an optional nested object as a patch. `read` reads the fields of the object, each of which is patched
/// individually. If the object is absent, nothing changes. If it is `null`, the result is `reset()`, a patch that
/// resets every field.
pub(super) fn group<T: Default>(
    object: &mut Object<'_>,
    name: &'static str,
    errors: &mut FieldErrors,
    reset: impl FnOnce() -> T,
    read: impl FnOnce(&mut Object<'_>, &mut FieldErrors) -> T,
) -> T {
    match object.field_value(name) {
        FieldValue::Absent => T::default(),
        FieldValue::Null => reset(),
        FieldValue::Value(_) => {
            let mut inner = object.object(name, errors);
            let changes = read(&mut inner, errors);
            inner.finish(errors);
            changes
        }
    }
}

pub(super) fn boolean(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| "must be `true` or `false`".to_owned())
}

pub(super) fn integer(min: u64, max: u64) -> impl FnOnce(&Value) -> Result<u64, String> {
    move |value| {
        let number = value.as_u64().filter(|number| (min..=max).contains(number));
        number.ok_or_else(|| format!("must be an integer from {min} to {max}"))
    }
}

pub(super) fn number(min: f64, max: f64) -> impl FnOnce(&Value) -> Result<Number, String> {
    move |value| {
        let number =
            value.as_number().filter(|number| number.as_f64().is_some_and(|n| (min..=max).contains(&n)));
        number.cloned().ok_or_else(|| format!("must be a number from {min} to {max}"))
    }
}

pub(super) fn choice<T: Copy>(
    choices: &'static [(&'static str, T)],
) -> impl FnOnce(&Value) -> Result<T, String> {
    move |value| {
        let chosen = choices.iter().find(|(text, _)| value.as_str() == Some(text));
        chosen.map(|(_, chosen)| *chosen).ok_or_else(|| {
            let texts: Vec<&str> = choices.iter().map(|(text, _)| *text).collect();
            format!("must be one of: `{}`", texts.join("`, `"))
        })
    }
}
