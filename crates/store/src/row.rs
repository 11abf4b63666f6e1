//! Conversion between Rust values and database values, identical for SQLite and PostgreSQL.

use crate::Error;

/// A value in a statement or a row. NULL is typed (`Int(None)` or `Text(None)`), because PostgreSQL requires a type for
/// it.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Int(Option<i64>),
    Text(Option<String>),
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}

impl From<Option<i64>> for Value {
    fn from(value: Option<i64>) -> Self {
        Self::Int(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(Some(value.to_owned()))
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(Some(value))
    }
}

impl From<Option<String>> for Value {
    fn from(value: Option<String>) -> Self {
        Self::Text(value)
    }
}

impl From<herm_types::Timestamp> for Value {
    fn from(value: herm_types::Timestamp) -> Self {
        Self::Int(Some(value.as_micros()))
    }
}

/// Builds the parameter list of a statement from values that convert into [`Value`].
macro_rules! params {
    ($($value:expr),* $(,)?) => { &[$($crate::row::Value::from($value)),*] };
}
pub(crate) use params;

/// One row of a query result. Columns are numbered from 0.
#[derive(Debug)]
pub(crate) struct Row(pub(crate) Vec<Value>);

impl Row {
    pub(crate) fn opt_int(&self, column: usize) -> Result<Option<i64>, Error> {
        match self.0.get(column) {
            Some(Value::Int(value)) => Ok(*value),
            Some(Value::Text(None)) => Ok(None),
            other => Err(Error::Corrupt(format!("column {column} should be a number, not {other:?}"))),
        }
    }

    pub(crate) fn int(&self, column: usize) -> Result<i64, Error> {
        self.opt_int(column)?.ok_or_else(|| Error::Corrupt(format!("column {column} is NULL")))
    }

    pub(crate) fn opt_str(&self, column: usize) -> Result<Option<&str>, Error> {
        match self.0.get(column) {
            Some(Value::Text(value)) => Ok(value.as_deref()),
            Some(Value::Int(None)) => Ok(None),
            other => Err(Error::Corrupt(format!("column {column} should be text, not {other:?}"))),
        }
    }

    pub(crate) fn str(&self, column: usize) -> Result<&str, Error> {
        self.opt_str(column)?.ok_or_else(|| Error::Corrupt(format!("column {column} is NULL")))
    }

    pub(crate) fn text(&self, column: usize) -> Result<String, Error> {
        self.str(column).map(str::to_owned)
    }

    pub(crate) fn time(&self, column: usize) -> Result<herm_types::Timestamp, Error> {
        self.int(column).map(herm_types::Timestamp::from_micros)
    }

    pub(crate) fn opt_time(&self, column: usize) -> Result<Option<herm_types::Timestamp>, Error> {
        Ok(self.opt_int(column)?.map(herm_types::Timestamp::from_micros))
    }

    /// Parses a text column as an id or another type that implements `FromStr`.
    pub(crate) fn parse<T>(&self, column: usize) -> Result<T, Error>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        self.str(column)?.parse().map_err(|error: T::Err| Error::Corrupt(format!("column {column}: {error}")))
    }

    pub(crate) fn opt_parse<T>(&self, column: usize) -> Result<Option<T>, Error>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        match self.opt_str(column)? {
            Some(_) => self.parse(column).map(Some),
            None => Ok(None),
        }
    }

    /// Parses a text column as a JSON document.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self, column: usize) -> Result<T, Error> {
        serde_json::from_str(self.str(column)?)
            .map_err(|error| Error::Corrupt(format!("column {column}: {error}")))
    }
}
