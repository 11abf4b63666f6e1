//! Base URLs in settings. A base URL is absolute and has no credentials, query or fragment.

use url::Url;

use crate::Error;
use crate::source::Sourced;

/// Parses an `http` or `https` URL to which paths will be appended. Removes trailing slashes.
pub(crate) fn http_base_url(raw: &Sourced<String>) -> Result<String, Error> {
    // The error messages must not contain the URL, which may include credentials.
    let url = Url::parse(&raw.value)
        .map_err(|error| raw.invalid(format!("not a URL ({error}); expected https://HOST[:PORT][/PATH]")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(raw.invalid(format!("{}:// is not supported; use https:// or http://", url.scheme())));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            raw.invalid("the URL must not contain a user or password, because it is logged; remove them")
        );
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(raw.invalid("the URL must not have a query or fragment, because paths are appended to it; remove the part from ? or #"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}
