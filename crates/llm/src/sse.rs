//! Parses server-sent events according to the WHATWG standard:
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html>.
//!
//! The bytes arrive in chunks of any size, and the resulting events do not depend on how the bytes are split.
//! The parser differs from a browser in three ways. Bytes that are not UTF-8 are an error, and are not
//! replaced. The size of an event is limited. The fields `id` and `retry` are ignored: they are for clients
//! that reconnect, and the stream of a model cannot be resumed.

#[cfg(test)]
mod tests;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A server-sent event: its name, which is empty if it has none, and its data lines, joined by line feeds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) data: String,
}

/// An error in the stream. The message continues a sentence that starts with the name of the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("sent a stream that is not UTF-8")]
    NotUtf8,
    #[error("sent an event larger than {max_bytes} bytes")]
    TooLarge { max_bytes: usize },
}

/// A parser for server-sent events. It buffers at most one incomplete event.
#[derive(Debug)]
pub(crate) struct Parser {
    max_bytes: usize,
    /// The bytes of the current line, whose line ending has not arrived yet.
    line: Vec<u8>,
    event: Event,
    has_data: bool,
    /// True if the last line ended with CR. An LF that follows belongs to the same line ending.
    after_cr: bool,
    is_first_line: bool,
}

impl Parser {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            line: Vec::new(),
            event: Event::default(),
            has_data: false,
            after_cr: false,
            is_first_line: true,
        }
    }

    /// Parses a chunk and calls `emit` for each complete event. After an error, the parser must not be used
    /// again.
    pub(crate) fn push(&mut self, mut bytes: &[u8], mut emit: impl FnMut(Event)) -> Result<(), Error> {
        loop {
            if self.after_cr && !bytes.is_empty() {
                self.after_cr = false;
                bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
            }
            let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let Some((line, rest)) = end.and_then(|end| bytes.split_at_checked(end)) else {
                self.check_size(bytes.len())?;
                self.line.extend_from_slice(bytes);
                return Ok(());
            };
            self.check_size(line.len())?;
            if self.line.is_empty() {
                self.end_line(line, &mut emit)?;
            } else {
                let mut whole = std::mem::take(&mut self.line);
                whole.extend_from_slice(line);
                self.end_line(&whole, &mut emit)?;
            }
            self.after_cr = rest.first() == Some(&b'\r');
            bytes = rest.get(1..).unwrap_or_default();
        }
    }

    fn check_size(&self, more: usize) -> Result<(), Error> {
        let buffered = self.line.len() + self.event.data.len() + self.event.name.len();
        if buffered + more > self.max_bytes {
            return Err(Error::TooLarge { max_bytes: self.max_bytes });
        }
        Ok(())
    }

    fn end_line(&mut self, mut line: &[u8], emit: &mut impl FnMut(Event)) -> Result<(), Error> {
        if std::mem::take(&mut self.is_first_line) {
            line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        }
        let line = std::str::from_utf8(line).map_err(|_| Error::NotUtf8)?;
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if std::mem::take(&mut self.has_data) {
                emit(event);
            }
            return Ok(());
        }
        // A comment starts with a colon. Its field name is empty, so it is ignored below like an unknown
        // field.
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.name),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            _ => {}
        }
        Ok(())
    }
}
