//! Forwards WebSocket connections. Data from the program is forwarded unchanged. Secret values in messages from the
//! host are masked.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::rewrite::{Rewriter, Rules};

/// When this many bytes of a message wait to be sent to the program, they are sent as a frame, even if the host's frame
/// has not ended. Long frames are therefore split.
const MAX_FRAME_BYTES: usize = 64 * 1024;
/// The maximum payload of a control frame, in bytes (RFC 6455, section 5.5). Larger control frames violate the
/// protocol.
const MAX_CONTROL_BYTES: usize = 125;
/// The size of the buffer for data from the host, in bytes.
const READ_BYTES: usize = 16 * 1024;

const FINAL: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
/// The lowest opcode of a control frame. Lower opcodes are data frames.
const FIRST_CONTROL: u8 = 8;
const CLOSE: u8 = 8;
const CONTINUATION: u8 = 0;

/// Copies data between a program and a destination host in both directions, until the host closes the connection.
/// Values that match `rules` are masked in the data from the host.
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
            copy_masked(&mut upstream_reads, &mut client_writes, rules).await;
        }
        let _ = client_writes.shutdown().await;
    };
    tokio::pin!(down);
    tokio::select! {
        () = &mut down => {}
        () = up => down.await,
    }
}

/// Copies frames from the host to the program and masks secret values in them, until either side closes the
/// connection or the host violates the protocol.
async fn copy_masked(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    rules: Arc<Rules>,
) {
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

/// The error if the host violates the WebSocket protocol or uses an extension that was not negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProtocolViolation;

/// Parses the WebSocket frames from a host and masks the secret values in the messages.
pub(crate) struct Frames {
    rules: Arc<Rules>,
    /// The message whose frames are being received, if there is one.
    message: Option<Message>,
    head: Vec<u8>,
    frame: Option<Frame>,
}

struct Message {
    rewriter: Rewriter,
    /// The opcode of this message's next frame to the program: the message type for the first frame, `CONTINUATION` for
    /// later ones.
    opcode: u8,
    pending: Vec<u8>,
}

struct Frame {
    opcode: u8,
    is_final: bool,
    remaining_bytes: u64,
    /// The payload received so far, if this is a control frame. A control frame is forwarded only when it is complete.
    control: Vec<u8>,
}

impl Frames {
    pub(crate) fn new(rules: Arc<Rules>) -> Self {
        Self { rules, message: None, head: Vec::new(), frame: None }
    }

    pub(crate) fn push(&mut self, mut bytes: &[u8]) -> Result<Vec<u8>, ProtocolViolation> {
        let mut out = Vec::with_capacity(bytes.len());
        loop {
            if let Some(frame) = &mut self.frame {
                let here = usize::try_from(frame.remaining_bytes).unwrap_or(usize::MAX).min(bytes.len());
                let (payload, rest) = bytes.split_at(here);
                frame.remaining_bytes -= here as u64;
                let is_frame_end = frame.remaining_bytes == 0;
                self.push_payload(payload, is_frame_end, &mut out)?;
                bytes = rest;
                if !is_frame_end {
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

    /// Parses the frame header. Returns `None` until all of it has been received.
    fn read_head(&mut self) -> Result<Option<Frame>, ProtocolViolation> {
        let [first, second, length @ ..] = self.head.as_slice() else { return Ok(None) };
        let opcode = first & OPCODE;
        let is_final = first & FINAL != 0;
        // Servers must not mask frames (RFC 6455, section 5.1), and the reserved bits must be zero because no
        // extension was negotiated.
        if first & RESERVED != 0 || second & 0x80 != 0 {
            return Err(ProtocolViolation);
        }
        let length_bytes = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if length.len() < length_bytes {
            return Ok(None);
        }
        let remaining_bytes = match length_bytes {
            0 => u64::from(second & 0x7f),
            _ => length.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        if opcode >= FIRST_CONTROL {
            if !is_final || remaining_bytes > MAX_CONTROL_BYTES as u64 {
                return Err(ProtocolViolation);
            }
        } else if (opcode == CONTINUATION) != self.message.is_some() {
            return Err(ProtocolViolation);
        } else if opcode != CONTINUATION {
            let rewriter = Rewriter::new(self.rules.clone());
            self.message = Some(Message { rewriter, opcode, pending: Vec::new() });
        }
        self.head.clear();
        Ok(Some(Frame { opcode, is_final, remaining_bytes, control: Vec::new() }))
    }

    /// Processes the next bytes of the current frame's payload.
    fn push_payload(
        &mut self,
        payload: &[u8],
        is_frame_end: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), ProtocolViolation> {
        let frame = self.frame.as_mut().ok_or(ProtocolViolation)?;
        if frame.opcode >= FIRST_CONTROL {
            frame.control.extend_from_slice(payload);
            if is_frame_end {
                write_control(&self.rules, frame, out);
            }
            return Ok(());
        }
        let message = self.message.as_mut().ok_or(ProtocolViolation)?;
        message.pending.extend(message.rewriter.push(payload));
        let is_message_end = is_frame_end && frame.is_final;
        if is_message_end {
            message.pending.extend(message.rewriter.finish());
        }
        let is_due = message.pending.len() >= MAX_FRAME_BYTES || is_frame_end && !message.pending.is_empty();
        if is_message_end || is_due {
            write_frame(message.opcode, is_message_end, &message.pending, out);
            message.opcode = CONTINUATION;
            message.pending.clear();
        }
        if is_message_end {
            self.message = None;
        }
        Ok(())
    }
}

/// Writes a control frame with secret values masked. If masking makes the payload too long, a close frame retains only
/// its status code, and other control frames lose their whole payload.
fn write_control(rules: &Rules, frame: &Frame, out: &mut Vec<u8>) {
    let retained = if frame.opcode == CLOSE { 2.min(frame.control.len()) } else { 0 };
    match rules.rewrite(&frame.control) {
        None => write_frame(frame.opcode, true, &frame.control, out),
        Some(masked) if masked.len() <= MAX_CONTROL_BYTES => write_frame(frame.opcode, true, &masked, out),
        Some(_) => write_frame(frame.opcode, true, frame.control.get(..retained).unwrap_or_default(), out),
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
    fn a_value_split_over_frames_and_reads_is_masked() {
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
    fn protocol_violations_are_errors() {
        for wrong in
            [&[0xc1, 0][..], &[0x81, 0x80], &[0x80, 0], &[0x01, 0, 0x01, 0], &[0x09, 0], &[0x89, 126, 0, 126]]
        {
            assert_eq!(frames().push(wrong), Err(ProtocolViolation), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in any::<Vec<u8>>()) {
            let _ = frames().push(&bytes);
        }
    }
}
