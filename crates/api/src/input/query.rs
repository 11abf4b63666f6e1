//! A request's query string: every parameter known, none given twice.

use std::str::FromStr;

use axum::extract::FromRequestParts;
use herm_types::Error;
use herm_types::paging::{DEFAULT_LIMIT, MAX_LIMIT, PageRequest};
use http::request::Parts;

use super::Faults;
use crate::error::Failure;

/// The parameters that have not been asked for yet.
pub(crate) struct Query {
    given: Vec<(String, String)>,
    faults: Faults,
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let query = parts.uri.query().unwrap_or_default();
        Ok(Self {
            given: form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
            faults: Faults::default(),
        })
    }
}

impl Query {
    /// A parameter's text, if it is given.
    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        let (mut values, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.given).into_iter().partition(|(given, _)| given == name);
        self.given = rest;
        if values.len() > 1 {
            self.faults.add(name, "is given more than once");
        }
        values.pop().map(|(_, value)| value)
    }

    /// A parameter that reads its own text, if it is given.
    pub(crate) fn parse<T: FromStr<Err: std::fmt::Display>>(&mut self, name: &str) -> Option<T> {
        let parsed = self.text(name)?.parse::<T>();
        parsed.map_err(|error| self.faults.add(name, error.to_string())).ok()
    }

    /// One of a few texts, if it is given.
    pub(crate) fn choice<T>(
        &mut self,
        name: &str,
        parse: impl Fn(&str) -> Option<T>,
        texts: &str,
    ) -> Option<T> {
        let text = self.text(name)?;
        let chosen = parse(&text);
        if chosen.is_none() {
            self.faults.add(name, format!("must be one of: {texts}"));
        }
        chosen
    }

    /// `limit` and `cursor`; a cursor is the id of the last row that was given.
    pub(crate) fn page<I: FromStr>(&mut self) -> PageRequest {
        let limit = match self.text("limit").map(|text| text.parse::<u32>()) {
            None => DEFAULT_LIMIT,
            Some(Ok(limit)) if (1..=MAX_LIMIT).contains(&limit) => limit,
            Some(_) => {
                self.faults.add("limit", format!("must be a whole number from 1 to {MAX_LIMIT}"));
                DEFAULT_LIMIT
            }
        };
        let after = self.text("cursor");
        if after.as_deref().is_some_and(|cursor| cursor.parse::<I>().is_err()) {
            self.faults.add("cursor", "is not a cursor that this list gave");
        }
        PageRequest { limit, after }
    }

    pub(crate) fn fault(&mut self, name: &str, message: impl Into<String>) {
        self.faults.add(name, message);
    }

    /// # Errors
    /// Every fault found, parameters that nobody asked for among them.
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        for (name, _) in &self.given {
            self.faults.add(name.clone(), "is not a known query parameter");
        }
        self.faults.check()
    }
}
