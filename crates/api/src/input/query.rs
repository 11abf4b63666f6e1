//! Reads the query string of a request, and rejects unknown and repeated parameters.

use std::str::FromStr;

use axum::extract::FromRequestParts;
use herm_types::Error;
use herm_types::paging::{DEFAULT_LIMIT, MAX_LIMIT, PageRequest};
use http::request::Parts;

use super::field_errors::{FieldErrors, quote_if_empty};
use crate::error::Failure;

/// The query parameters that the handler has not read yet, and the errors found so far.
pub(crate) struct Query {
    parameters: Vec<(String, String)>,
    errors: FieldErrors,
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let query = parts.uri.query().unwrap_or_default();
        Ok(Self {
            parameters: form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
            errors: FieldErrors::default(),
        })
    }
}

impl Query {
    /// Reads an optional parameter. Returns `None` if it is absent. Each parameter can be read only once.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        let (mut values, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.parameters).into_iter().partition(|(key, _)| key == name);
        self.parameters = rest;
        if values.len() > 1 {
            self.errors.add(name, "must not be repeated");
        }
        values.pop().map(|(_, value)| value)
    }

    /// Reads an optional filter parameter that must not be empty. An empty value probably comes from an unset variable
    /// in the client, so it is rejected instead of being treated as "no filter".
    pub(crate) fn take_non_empty(&mut self, name: &str) -> Option<String> {
        let text = self.take(name)?;
        if text.is_empty() {
            self.errors.add(name, "must not be empty; omit the parameter to list all");
        }
        Some(text)
    }

    /// Reads an optional parameter and parses it with `FromStr`. If parsing fails, the parser's error message becomes
    /// the message of the field error.
    pub(crate) fn parse<T: FromStr<Err: std::fmt::Display>>(&mut self, name: &str) -> Option<T> {
        let parsed = self.take(name)?.parse::<T>();
        parsed.map_err(|error| self.errors.add(name, error.to_string())).ok()
    }

    /// Reads an optional parameter and parses it with `parse`. `choices` lists the valid values, for the message of the
    /// field error.
    pub(crate) fn choice<T>(
        &mut self,
        name: &str,
        parse: impl Fn(&str) -> Option<T>,
        choices: &str,
    ) -> Option<T> {
        let text = self.take(name)?;
        let chosen = parse(&text);
        if chosen.is_none() {
            self.errors.add(name, format!("must be one of: {choices}"));
        }
        chosen
    }

    /// Reads the parameters `limit` and `cursor` of a list operation. A cursor must be an id of type `I`, because it is
    /// the id of the last row of the previous page.
    pub(crate) fn page<I: FromStr>(&mut self) -> PageRequest {
        let limit = match self.take("limit").map(|text| text.parse::<u32>()) {
            None => DEFAULT_LIMIT,
            Some(Ok(limit)) if (1..=MAX_LIMIT).contains(&limit) => limit,
            Some(_) => {
                self.errors.add("limit", format!("must be an integer from 1 to {MAX_LIMIT}"));
                DEFAULT_LIMIT
            }
        };
        let after = self.take("cursor");
        if after.as_deref().is_some_and(|cursor| cursor.parse::<I>().is_err()) {
            self.errors.add("cursor", "must be the `next_cursor` of a previous page");
        }
        PageRequest { limit, after }
    }

    pub(crate) fn error(&mut self, name: &str, message: impl Into<String>) {
        self.errors.add(name, message);
    }

    /// Finishes reading the query. Parameters that the handler has not read are reported as unknown.
    ///
    /// # Errors
    /// `validation_error`, which lists every invalid and every unknown parameter.
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        for (name, _) in &self.parameters {
            self.errors.add(quote_if_empty(name), "unknown query parameter");
        }
        self.errors.check()
    }
}
