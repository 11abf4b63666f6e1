//! Pages of a list. A cursor identifies the last row of a page and is not an offset. Therefore, rows that are
//! inserted between two requests do not cause other rows to appear twice or to be skipped.

use serde::Serialize;

/// The maximum number of rows in a page. A larger `limit` is rejected.
pub const MAX_LIMIT: u32 = 100;
/// The number of rows in a page if the request has no `limit`.
pub const DEFAULT_LIMIT: u32 = 20;

/// A request for a page: up to `limit` rows that follow the row `after` in the order of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    pub limit: u32,
    /// The `next_cursor` of the previous page, or `None` for the first page.
    pub after: Option<String>,
}

impl Default for PageRequest {
    fn default() -> Self {
        Self { limit: DEFAULT_LIMIT, after: None }
    }
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Page<T> {
    pub data: Vec<T>,
    /// An opaque string. Pass it as the parameter `cursor` to get the next page. `null` on the last page.
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// Creates a page from up to `limit + 1` rows. If there is a row beyond `limit`, another page follows.
    /// That row is not part of this page.
    pub fn from_rows(mut rows: Vec<T>, limit: u32, cursor_of: impl Fn(&T) -> String) -> Self {
        let limit = limit as usize;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = if more { rows.last().map(cursor_of) } else { None };
        Self { data: rows, next_cursor }
    }

    /// Converts each row with `f`. The cursor is unchanged.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        Page { data: self.data.into_iter().map(f).collect(), next_cursor: self.next_cursor }
    }
}
