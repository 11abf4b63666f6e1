//! Parses the attachments of a message.

use herm_app::files::check_path;
use herm_types::thread::{Attachment, AttachmentType};
use url::Url;

use crate::input::{FieldErrors, Object};

/// The maximum number of attachments of one message. A message with more is rejected.
const MAX_ATTACHMENTS: usize = 20;
/// The maximum length of an attachment's URL, in characters. A longer URL is rejected, because many servers do not
/// support it.
const MAX_URL_CHARS: usize = 2048;
/// The maximum length of an attachment's path, in characters. A longer path is rejected. `check_path` also limits its
/// length in bytes.
const MAX_PATH_CHARS: usize = 4096;

const TYPES: [(&str, AttachmentType); 3] =
    [("image", AttachmentType::Image), ("video", AttachmentType::Video), ("audio", AttachmentType::Audio)];

/// Reads the field `attachments`. Returns `None` if it is absent, or not an array of valid length.
pub(super) fn read(body: &mut Object<'_>, errors: &mut FieldErrors) -> Option<Vec<Attachment>> {
    let objects = body.objects("attachments", MAX_ATTACHMENTS, errors)?;
    // Invalid attachments, for which errors were added, are part of the result. Otherwise, a message with only an
    // invalid attachment would also get the misleading error that `content` is required.
    let attachments = objects.into_iter().map(|object| attachment(object, errors));
    Some(attachments.collect())
}

fn attachment(mut object: Object<'_>, errors: &mut FieldErrors) -> Attachment {
    let path_prefix = object.path_to("");
    let kind = object.required_choice("type", &TYPES, errors);
    let url = object.string("url", 1..=MAX_URL_CHARS, errors);
    let path = object.string("path", 1..=MAX_PATH_CHARS, errors);
    if let Some(error) = url.as_deref().and_then(error_of_url) {
        errors.add(object.path_to("url"), error);
    }
    if let Some(error) = path.as_deref().and_then(error_of_path) {
        errors.add(object.path_to("path"), error);
    }
    if object.is_object() && object.has("url") == object.has("path") {
        errors.add(path_prefix.trim_end_matches('.'), "must have exactly one of the fields `url` and `path`");
    }
    object.finish(errors);
    Attachment { kind: kind.unwrap_or(AttachmentType::Image), url, path }
}

fn error_of_url(text: &str) -> Option<&'static str> {
    const INVALID: &str = "must be an absolute `http://` or `https://` URL without spaces";
    // The URL parser would silently remove some of these characters. The text is rejected instead, because the server
    // stores it and sends it to the model as it is, not as the parsed URL.
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Some(INVALID);
    }
    let url = Url::parse(text).ok().filter(|url| ["http", "https"].contains(&url.scheme()));
    match url {
        None => Some(INVALID),
        Some(url) if !url.username().is_empty() || url.password().is_some() => {
            Some("must not contain a user name or password")
        }
        Some(_) => None,
    }
}

fn error_of_path(text: &str) -> Option<String> {
    check_path(text).err()
}
