//! A reader for event streams. It does as little work as possible, because the benchmark's readers use the same CPU
//! cores as the server.

use anyhow::{Context as _, bail};

/// An open stream of a deployment's events.
pub(crate) struct EventStream {
    response: reqwest::Response,
    buffer: Vec<u8>,
    /// The number of bytes at the beginning of `buffer` that have already been parsed.
    read: usize,
}

/// An event received from a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamEvent<'a> {
    pub(crate) name: &'a str,
    /// The number in the event's id, for example 7 for `evt_7`.
    pub(crate) number: u64,
    pub(crate) data: &'a str,
}

impl EventStream {
    pub(crate) fn new(response: reqwest::Response) -> Self {
        Self { response, buffer: Vec::new(), read: 0 }
    }

    /// Waits for the next event and returns it.
    ///
    /// # Errors
    /// Fails if the connection is lost, or if the server ends the stream, which it never does during a benchmark.
    pub(crate) async fn next(&mut self) -> anyhow::Result<StreamEvent<'_>> {
        let (start, end) = loop {
            match self.find_frame() {
                Some((start, end)) if is_event(&self.buffer, start, end) => break (start, end),
                Some(_) => {}
                None => self.read_more().await?,
            }
        };
        let frame = self.buffer.get(start..end).unwrap_or_default();
        StreamEvent::parse(std::str::from_utf8(frame)?).context("a received event lacks its type, id or data")
    }

    /// Skips events up to the next one of the type `name`, and returns that event.
    ///
    /// # Errors
    /// Fails if one of the skipped events reports that a run failed or was cancelled.
    pub(crate) async fn wait_for(&mut self, name: &str) -> anyhow::Result<StreamEvent<'_>> {
        loop {
            // Check each skipped event: if it reports a failed run, the expected event will never arrive.
            let is_match = {
                let frame = self.next().await?;
                frame.ensure_not_failed()?;
                frame.name == name
            };
            if is_match {
                return self.last();
            }
        }
    }

    /// Reads events until one of them reports that a run has completed.
    ///
    /// # Errors
    /// Fails if an event reports that a run failed or was cancelled.
    pub(crate) async fn wait_for_completion(&mut self) -> anyhow::Result<()> {
        loop {
            if self.next().await?.is_completion()? {
                return Ok(());
            }
        }
    }

    /// Returns the event that [`Self::next`] returned last.
    fn last(&self) -> anyhow::Result<StreamEvent<'_>> {
        let read = self.buffer.get(..self.read.saturating_sub(2)).unwrap_or_default();
        let start = read.windows(2).rposition(|pair| pair == b"\n\n").map_or(0, |end| end + 2);
        let frame = read.get(start..).unwrap_or_default();
        StreamEvent::parse(std::str::from_utf8(frame)?).context("a received event lacks its type, id or data")
    }

    /// Returns the number of the event that [`Self::next`] returned last.
    pub(crate) fn last_number(&self) -> anyhow::Result<u64> {
        Ok(self.last()?.number)
    }

    fn find_frame(&mut self) -> Option<(usize, usize)> {
        let start = self.read;
        let rest = self.buffer.get(start..)?;
        let end = start + rest.windows(2).position(|pair| pair == b"\n\n")?;
        self.read = end + 2;
        Some((start, end))
    }

    async fn read_more(&mut self) -> anyhow::Result<()> {
        let chunk = self
            .response
            .chunk()
            .await
            .context("the connection of an event stream was lost")?
            .context("the server ended an event stream")?;
        self.buffer.drain(..self.read);
        self.read = 0;
        self.buffer.extend_from_slice(&chunk);
        Ok(())
    }
}

/// Returns true if the bytes from `start` to `end` are an event, and false if they are a comment or a `retry` field.
fn is_event(buffer: &[u8], start: usize, end: usize) -> bool {
    buffer.get(start..end).is_some_and(|frame| frame.starts_with(b"event: "))
}

impl<'a> StreamEvent<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (name, rest) = text.strip_prefix("event: ")?.split_once('\n')?;
        let (id, data) = rest.split_once("\ndata: ")?;
        let number = id.strip_prefix("id: evt_")?.parse().ok()?;
        Some(Self { name, number, data })
    }

    /// Returns true if the event reports that a run has completed.
    ///
    /// # Errors
    /// Fails if the event reports that a run failed or was cancelled.
    pub(crate) fn is_completion(self) -> anyhow::Result<bool> {
        self.ensure_not_failed()?;
        Ok(self.name == "run_status" && self.data.contains(r#""status":"completed""#))
    }

    fn ensure_not_failed(self) -> anyhow::Result<()> {
        let failed = [r#""status":"error""#, r#""status":"cancelled""#];
        if self.name == "run_status" && failed.iter().any(|status| self.data.contains(status)) {
            bail!("a run failed or was cancelled: {}", self.data);
        }
        Ok(())
    }

    /// Returns the text of a `token` event. JSON escapes are not decoded, because the scripted replies contain none.
    pub(crate) fn delta(self) -> Option<&'a str> {
        let (_, rest) = self.data.split_once(r#""delta":""#)?;
        Some(rest.split_once('"')?.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_parsed() {
        let frame =
            StreamEvent::parse("event: token\nid: evt_3\ndata: {\"a\":1,\"delta\":\"7 8 \"}").unwrap();
        assert_eq!((frame.name, frame.number, frame.delta()), ("token", 3, Some("7 8 ")));
        assert!(!frame.is_completion().unwrap());
    }

    #[test]
    fn a_failed_run_is_an_error() {
        let frame = |status| StreamEvent { name: "run_status", number: 1, data: status };
        assert!(frame(r#"{"status":"completed"}"#).is_completion().unwrap());
        assert!(!frame(r#"{"status":"running"}"#).is_completion().unwrap());
        assert!(frame(r#"{"status":"error"}"#).is_completion().is_err());
    }
}
