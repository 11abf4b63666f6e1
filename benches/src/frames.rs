//! Reads a stream of events with as little work as it takes: the readers share the server's cores.

use anyhow::{Context as _, bail};

/// An open stream.
pub(crate) struct Frames {
    response: reqwest::Response,
    buffer: Vec<u8>,
    /// What of the buffer has been given out already.
    read: usize,
}

/// One event, as its bytes came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) name: &'a str,
    /// Of its id, `evt_<n>`.
    pub(crate) number: u64,
    pub(crate) data: &'a str,
}

impl Frames {
    pub(crate) fn new(response: reqwest::Response) -> Self {
        Self { response, buffer: Vec::new(), read: 0 }
    }

    /// The next event.
    ///
    /// # Errors
    /// If the stream ends: nothing here ends one before its reader does.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Frame<'_>> {
        let (start, end) = loop {
            match self.find_frame() {
                Some((start, end)) if is_event(&self.buffer, start, end) => break (start, end),
                Some(_) => {}
                None => self.read_more().await?,
            }
        };
        let frame = self.buffer.get(start..end).unwrap_or_default();
        Frame::parse(std::str::from_utf8(frame)?).context("an event has no name or no data")
    }

    /// Reads on to the event of this name.
    pub(crate) async fn until(&mut self, name: &str) -> anyhow::Result<Frame<'_>> {
        loop {
            // A run that failed sends nothing more that could be waited for.
            let is_it = {
                let frame = self.next().await?;
                frame.refuse_failure()?;
                frame.name == name
            };
            if is_it {
                return self.last();
            }
        }
    }

    /// Reads on until a run has completed.
    pub(crate) async fn until_completed(&mut self) -> anyhow::Result<()> {
        loop {
            if self.next().await?.is_completion()? {
                return Ok(());
            }
        }
    }

    /// The event that was given last, again.
    fn last(&self) -> anyhow::Result<Frame<'_>> {
        let read = self.buffer.get(..self.read.saturating_sub(2)).unwrap_or_default();
        let start = read.windows(2).rposition(|two| two == b"\n\n").map_or(0, |end| end + 2);
        let frame = read.get(start..).unwrap_or_default();
        Frame::parse(std::str::from_utf8(frame)?).context("an event has no name or no data")
    }

    /// The number of the event that was given last.
    pub(crate) fn last_number(&self) -> anyhow::Result<u64> {
        Ok(self.last()?.number)
    }

    fn find_frame(&mut self) -> Option<(usize, usize)> {
        let start = self.read;
        let rest = self.buffer.get(start..)?;
        let end = start + rest.windows(2).position(|two| two == b"\n\n")?;
        self.read = end + 2;
        Some((start, end))
    }

    async fn read_more(&mut self) -> anyhow::Result<()> {
        let chunk = self.response.chunk().await.context("a stream broke")?.context("a stream ended")?;
        self.buffer.drain(..self.read);
        self.read = 0;
        self.buffer.extend_from_slice(&chunk);
        Ok(())
    }
}

/// Comments and the retry hint are none.
fn is_event(buffer: &[u8], start: usize, end: usize) -> bool {
    buffer.get(start..end).is_some_and(|frame| frame.starts_with(b"event: "))
}

impl<'a> Frame<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (name, rest) = text.strip_prefix("event: ")?.split_once('\n')?;
        let (id, data) = rest.split_once("\ndata: ")?;
        let number = id.strip_prefix("id: evt_")?.parse().ok()?;
        Some(Self { name, number, data })
    }

    /// Whether a run has completed.
    ///
    /// # Errors
    /// If one ended otherwise.
    pub(crate) fn is_completion(self) -> anyhow::Result<bool> {
        self.refuse_failure()?;
        Ok(self.name == "run_status" && self.data.contains(r#""status":"completed""#))
    }

    fn refuse_failure(self) -> anyhow::Result<()> {
        let failed = [r#""status":"error""#, r#""status":"cancelled""#];
        if self.name == "run_status" && failed.iter().any(|status| self.data.contains(status)) {
            bail!("a run did not complete: {}", self.data);
        }
        Ok(())
    }

    /// The text of a token, as it stands in the JSON: the scripts here say nothing that is escaped.
    pub(crate) fn delta(self) -> Option<&'a str> {
        let (_, rest) = self.data.split_once(r#""delta":""#)?;
        Some(rest.split_once('"')?.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_taken_apart() {
        let frame = Frame::parse("event: token\nid: evt_3\ndata: {\"a\":1,\"delta\":\"7 8 \"}").unwrap();
        assert_eq!((frame.name, frame.number, frame.delta()), ("token", 3, Some("7 8 ")));
        assert!(!frame.is_completion().unwrap());
    }

    #[test]
    fn a_run_that_failed_is_an_error() {
        let frame = |status| Frame { name: "run_status", number: 1, data: status };
        assert!(frame(r#"{"status":"completed"}"#).is_completion().unwrap());
        assert!(!frame(r#"{"status":"running"}"#).is_completion().unwrap());
        assert!(frame(r#"{"status":"error"}"#).is_completion().is_err());
    }
}
