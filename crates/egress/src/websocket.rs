//! WebSocket connections: bytes from the program pass as they are, messages from the host are masked.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::rewrite::{Rewriter, Rules};

/// A message is passed on frame by frame; of a longer frame so much at a time.
const MAX_FRAME_BYTES: usize = 64 * 1024;
/// The most bytes of a control frame (RFC 6455, section 5.5).
const MAX_CONTROL_BYTES: usize = 125;
/// So much is read from a host at once.
const READ_BYTES: usize = 16 * 1024;

const FINAL: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
/// The first of the operations that steer the connection.
const FIRST_CONTROL: u8 = 8;
const CLOSE: u8 = 8;
const CONTINUATION: u8 = 0;

/// Passes bytes between a program and a host until the host ends the connection.
pub(crate) async fn splice<C, U>(client: C, upstream: U, rules: Arc<Rules>)
where
    C: AsyncRead + AsyncWrite,
    U: AsyncRead + AsyncWrite,
{
    let (mut client_reads, mut client_writes) = tokio::io::split(client);
    let (mut upstream_reads, mut upstream_writes) = tokio::io::split(upstream);
    let up = async {
        let _ = tokio::io::copy(&mut client_reads, &mut upstream_writes).await;
        let _ = upstream_writes.shutdown().await;
    };
    let down = async {
        if rules.is_empty() {
            let _ = tokio::io::copy(&mut upstream_reads, &mut client_writes).await;
        } else {
            masked(&mut upstream_reads, &mut client_writes, rules).await;
        }
        let _ = client_writes.shutdown().await;
    };
    tokio::pin!(down);
    tokio::select! {
        () = &mut down => {}
        () = up => down.await,
    }
}

/// Ends when either side does, or when what comes is no WebSocket.
async fn masked(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin), rules: Arc<Rules>) {
    let mut frames = Frames::new(rules);
    let mut bytes = BytesMut::with_capacity(READ_BYTES);
    while matches!(from.read_buf(&mut bytes).await, Ok(1..)) {
        let Ok(out) = frames.push(&bytes) else { return };
        bytes.clear();
        if to.write_all(&out).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
}

/// The host does not speak the protocol, or a part of it that nobody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotWebSocket;

/// The frames of a host, with the values in their messages masked.
pub(crate) struct Frames {
    rules: Arc<Rules>,
    /// Of the message that is under way.
    message: Option<Message>,
    head: Vec<u8>,
    frame: Option<Frame>,
}

struct Message {
    rewriter: Rewriter,
    /// What the next frame of it that is sent is called.
    opcode: u8,
    waiting: Vec<u8>,
}

struct Frame {
    opcode: u8,
    is_final: bool,
    left: u64,
    /// Of a control frame, which is sent whole.
    control: Vec<u8>,
}

impl Frames {
    pub(crate) fn new(rules: Arc<Rules>) -> Self {
        Self { rules, message: None, head: Vec::new(), frame: None }
    }

    pub(crate) fn push(&mut self, mut bytes: &[u8]) -> Result<Vec<u8>, NotWebSocket> {
        let mut out = Vec::with_capacity(bytes.len());
        loop {
            if let Some(frame) = &mut self.frame {
                let here = usize::try_from(frame.left).unwrap_or(usize::MAX).min(bytes.len());
                let (payload, rest) = bytes.split_at(here);
                frame.left -= here as u64;
                let is_over = frame.left == 0;
                self.take(payload, is_over, &mut out)?;
                bytes = rest;
                if !is_over {
                    return Ok(out);
                }
                self.frame = None;
            }
            let Some((first, rest)) = bytes.split_first() else { return Ok(out) };
            self.head.push(*first);
            bytes = rest;
            self.frame = self.read_head()?;
        }
    }

    /// The frame whose head has come, once it is whole.
    fn read_head(&mut self) -> Result<Option<Frame>, NotWebSocket> {
        let [first, second, length @ ..] = self.head.as_slice() else { return Ok(None) };
        let opcode = first & OPCODE;
        let is_final = first & FINAL != 0;
        // Hosts do not scramble what they send, and no extension was agreed.
        if first & RESERVED != 0 || second & 0x80 != 0 {
            return Err(NotWebSocket);
        }
        let wanted = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if length.len() < wanted {
            return Ok(None);
        }
        let left = match wanted {
            0 => u64::from(second & 0x7f),
            _ => length.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        if opcode >= FIRST_CONTROL {
            if !is_final || left > MAX_CONTROL_BYTES as u64 {
                return Err(NotWebSocket);
            }
        } else if (opcode == CONTINUATION) != self.message.is_some() {
            return Err(NotWebSocket);
        } else if opcode != CONTINUATION {
            let rewriter = Rewriter::new(self.rules.clone());
            self.message = Some(Message { rewriter, opcode, waiting: Vec::new() });
        }
        self.head.clear();
        Ok(Some(Frame { opcode, is_final, left, control: Vec::new() }))
    }

    /// Takes a part of the payload of the frame that is under way.
    fn take(&mut self, payload: &[u8], is_over: bool, out: &mut Vec<u8>) -> Result<(), NotWebSocket> {
        let frame = self.frame.as_mut().ok_or(NotWebSocket)?;
        if frame.opcode >= FIRST_CONTROL {
            frame.control.extend_from_slice(payload);
            if is_over {
                write_control(&self.rules, frame, out);
            }
            return Ok(());
        }
        let message = self.message.as_mut().ok_or(NotWebSocket)?;
        message.waiting.extend(message.rewriter.push(payload));
        let ends = is_over && frame.is_final;
        if ends {
            message.waiting.extend(message.rewriter.finish());
        }
        let is_due = message.waiting.len() >= MAX_FRAME_BYTES || is_over && !message.waiting.is_empty();
        if ends || is_due {
            write_frame(message.opcode, ends, &message.waiting, out);
            message.opcode = CONTINUATION;
            message.waiting.clear();
        }
        if ends {
            self.message = None;
        }
        Ok(())
    }
}

/// A control frame that would become too long keeps no text: only the reason for closing has a number before it.
fn write_control(rules: &Rules, frame: &Frame, out: &mut Vec<u8>) {
    let kept = if frame.opcode == CLOSE { 2.min(frame.control.len()) } else { 0 };
    match rules.rewrite(&frame.control) {
        None => write_frame(frame.opcode, true, &frame.control, out),
        Some(masked) if masked.len() <= MAX_CONTROL_BYTES => write_frame(frame.opcode, true, &masked, out),
        Some(_) => write_frame(frame.opcode, true, frame.control.get(..kept).unwrap_or_default(), out),
    }
}

fn write_frame(opcode: u8, is_final: bool, payload: &[u8], out: &mut Vec<u8>) {
    out.push(if is_final { FINAL | opcode } else { opcode });
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..=125), _) => out.push(length),
        (_, Ok(length)) => {
            out.push(126);
            out.extend(length.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend((payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rewrite::Needle;

    const VALUE: &str = "sk-live-0123456789";
    const TEXT: u8 = 1;

    fn frames() -> Frames {
        Frames::new(Arc::new(Rules::new(Needle::all_forms(VALUE, "PLACEHOLDER"))))
    }

    fn frame(opcode: u8, is_final: bool, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write_frame(opcode, is_final, payload, &mut out);
        out
    }

    #[test]
    fn a_value_is_masked_over_frames_and_pieces_and_pings_come_between() {
        let sent = [
            frame(TEXT, false, b"a sk-live-01"),
            frame(9, true, b"ping"),
            frame(0, true, b"23456789 b"),
            frame(TEXT, true, b"ends with sk-li"),
            frame(2, true, &[7; 70_000]),
            frame(8, true, b"\x03\xe8sk-live-0123456789"),
        ]
        .concat();
        let expected = [
            frame(TEXT, false, b"a "),
            frame(9, true, b"ping"),
            frame(0, true, b"PLACEHOLDER b"),
            frame(TEXT, true, b"ends with sk-li"),
            frame(2, true, &[7; 70_000]),
            frame(8, true, b"\x03\xe8PLACEHOLDER"),
        ]
        .concat();
        assert_eq!(frames().push(&sent).unwrap(), expected);
        let mut one_by_one = frames();
        let out: Vec<u8> = sent.chunks(1).flat_map(|byte| one_by_one.push(byte).unwrap()).collect();
        let whole_until = expected.len() - frame(2, true, &[7; 70_000]).len() - 24;
        assert_eq!(out[..whole_until.min(20)], expected[..whole_until.min(20)]);
        assert!(!out.windows(VALUE.len()).any(|part| part == VALUE.as_bytes()));
        assert!(out.ends_with(b"\x03\xe8PLACEHOLDER"));
    }

    #[test]
    fn what_is_no_websocket_ends_the_connection() {
        for wrong in
            [&[0xc1, 0][..], &[0x81, 0x80], &[0x80, 0], &[0x01, 0, 0x01, 0], &[0x09, 0], &[0x89, 126, 0, 126]]
        {
            assert_eq!(frames().push(wrong), Err(NotWebSocket), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in any::<Vec<u8>>()) {
            let _ = frames().push(&bytes);
        }
    }
}
