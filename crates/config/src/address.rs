//! URLs an operator gives: whole, without credentials, and without anything a path could not follow.

use url::Url;

use crate::Error;
use crate::source::Found;

/// An `http` or `https` URL that paths are appended to, without its last `/`.
pub(crate) fn http_base(found: &Found<String>) -> Result<String, Error> {
    // The value is not repeated before it is known to hold no credentials.
    let url = Url::parse(&found.value)
        .map_err(|fault| found.invalid(format!("not a URL ({fault}); write https://HOST[:PORT][/PATH]")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(found.invalid(format!("{}:// is not supported; write https:// or http://", url.scheme())));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(found.invalid("a URL is shown in logs and must hold no user or password; remove them"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(found.invalid("paths are appended to this URL; remove the part from ? or #"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}
