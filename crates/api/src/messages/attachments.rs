//! The attachments of a message, with every fault they may have.

use herm_app::files::valid_path;
use herm_types::thread::{Attachment, AttachmentType};
use url::Url;

use crate::input::{Faults, Object};

/// Attachments of one message, at most.
const MAX_ATTACHMENTS: usize = 20;
/// Characters of an address, at most: what browsers and servers agree on.
const MAX_URL_CHARS: usize = 2048;
/// Characters of a path, at most; its bytes are counted where it is read.
const MAX_PATH_CHARS: usize = 4096;

const TYPES: [(&str, AttachmentType); 3] =
    [("image", AttachmentType::Image), ("video", AttachmentType::Video), ("audio", AttachmentType::Audio)];

/// Reads the field; `None` if it is not given, or is no list that could be read.
pub(super) fn read(body: &mut Object<'_>, faults: &mut Faults) -> Option<Vec<Attachment>> {
    let objects = body.objects("attachments", MAX_ATTACHMENTS, faults)?;
    // One with a fault counts as well: that there is one is known.
    let attachments = objects.into_iter().map(|object| attachment(object, faults));
    Some(attachments.collect())
}

fn attachment(mut object: Object<'_>, faults: &mut Faults) -> Attachment {
    let whole = object.path_to("");
    let kind = object.required_choice("type", &TYPES, faults);
    let url = object.text("url", 1..=MAX_URL_CHARS, faults);
    let path = object.text("path", 1..=MAX_PATH_CHARS, faults);
    if let Some(fault) = url.as_deref().and_then(fault_of_url) {
        faults.add(object.path_to("url"), fault);
    }
    if let Some(fault) = path.as_deref().and_then(fault_of_path) {
        faults.add(object.path_to("path"), fault);
    }
    if object.is_there() && object.is_given("url") == object.is_given("path") {
        faults.add(whole.trim_end_matches('.'), "must have either url or path");
    }
    object.finish(faults);
    Attachment { kind: kind.unwrap_or(AttachmentType::Image), url, path }
}

fn fault_of_url(text: &str) -> Option<&'static str> {
    const FAULT: &str = "must be an absolute address that begins with http:// or https://";
    // What a parser would drop or repair in silence is not sent on.
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Some(FAULT);
    }
    let url = Url::parse(text).ok().filter(|url| ["http", "https"].contains(&url.scheme()));
    match url {
        None => Some(FAULT),
        Some(url) if !url.username().is_empty() || url.password().is_some() => {
            Some("must not hold a user name or a password")
        }
        Some(_) => None,
    }
}

fn fault_of_path(text: &str) -> Option<String> {
    valid_path(text).err()
}
