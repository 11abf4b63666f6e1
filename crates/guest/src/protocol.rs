//! The frames, and how they are read and written.

use std::io::{self, Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The version this program speaks; both sides must have the same.
pub const VERSION: u32 = 2;
/// The server's socket, in the directory that both sides share.
pub const SOCKET_FILE: &str = "guest.sock";
/// What proves that the guest is the guest, in the same directory until it has dialled.
pub const TOKEN_FILE: &str = "token";
/// Where programs in the sandbox find the proxy, on loopback.
pub const PROXY_PORT: u16 = 3128;
/// The most bytes of one frame, without its length.
pub const MAX_FRAME_BYTES: usize = 1024 * 1024;
/// The most bytes of standard input that a command can be given.
pub const MAX_STDIN_BYTES: usize = 512 * 1024;
/// The most bytes of one piece of output.
pub const MAX_CHUNK_BYTES: usize = 64 * 1024;
/// The most bytes of a command's output that are kept.
pub const MAX_OUTPUT_BYTES: usize = 1024 * 1024;

/// What the guest says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromGuest {
    /// The first frame of a connection. `token` proves that it is the guest, not a command inside, that dials.
    Hello { version: u32, token: String },
    /// The first frame of a connection that a program made to the proxy: after the welcome its bytes follow, unframed.
    Carry { version: u32, token: String },
    /// The beginning of a command's output: the bytes from `offset` on, as they come.
    Output { exec_id: String, stream: Stream, offset: u64, data: Bytes },
    /// A command has ended. Sent again on each attach until it is acknowledged.
    Exited { exec_id: String, exit: Exit, stdout: Rest, stderr: Rest, duration_ms: u64 },
    /// There was no way to begin the command.
    Failed { exec_id: String, message: String },
    /// Nothing is known of this command: it was never begun here, or its result was acknowledged.
    Unknown { exec_id: String },
}

/// What the server says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromServer {
    /// The answer to a hello that is right; to any other the server closes the connection.
    Welcome { version: u32 },
    /// Begin a command. One with a known id is not begun again: it is attached to.
    Exec(Exec),
    /// Tell what is known of a command, from its first byte of output on.
    Attach { exec_id: String },
    /// End a command and everything in its process group, at once.
    Kill { exec_id: String },
    /// The result is recorded: forget the command.
    Ack { exec_id: String },
    /// End everything.
    Shutdown,
}

/// A command to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Names the command for good; 1–128 bytes.
    pub exec_id: String,
    pub argv: Vec<String>,
    /// Added to the sandbox's own environment.
    pub env: Vec<(String, String)>,
    pub cwd: String,
    pub stdin: Bytes,
    /// The whole process group is ended after so long.
    pub timeout_ms: u64,
    /// Bytes of output that are kept, half of them for each stream: of it the first and the last.
    pub output_limit_bytes: usize,
}

/// One of a command's output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    Stdout,
    Stderr,
}

/// What follows the output that was sent as it came: so many bytes that were not kept, then the last ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rest {
    pub dropped_bytes: u64,
    pub tail: Bytes,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    Code(i32),
    Signal(i32),
    TimedOut,
    Killed,
}

/// Bytes, as base64 in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// A frame's bytes, its length included.
///
/// # Errors
/// It would be larger than [`MAX_FRAME_BYTES`].
pub fn encode<T: Serialize>(frame: &T) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(frame)?;
    let length = u32::try_from(json.len()).ok().filter(|_| json.len() <= MAX_FRAME_BYTES);
    let length =
        length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the frame is too large"))?;
    let mut bytes = Vec::with_capacity(json.len() + 4);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&json);
    Ok(bytes)
}

/// The length that a frame's first four bytes announce.
///
/// # Errors
/// It is larger than [`MAX_FRAME_BYTES`].
pub fn decode_length(prefix: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_be_bytes(prefix) as usize;
    if length > MAX_FRAME_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the frame is too large"));
    }
    Ok(length)
}

/// A frame from its bytes, without its length.
///
/// # Errors
/// It is not a frame of this protocol.
pub fn decode<T: for<'de> Deserialize<'de>>(json: &[u8]) -> io::Result<T> {
    Ok(serde_json::from_slice(json)?)
}

pub fn write_frame<T: Serialize>(writer: &mut impl Write, frame: &T) -> io::Result<()> {
    writer.write_all(&encode(frame)?)
}

pub fn read_frame<T: for<'de> Deserialize<'de>>(reader: &mut impl Read) -> io::Result<T> {
    let mut prefix = [0u8; 4];
    reader.read_exact(&mut prefix)?;
    let mut json = vec![0u8; decode_length(prefix)?];
    reader.read_exact(&mut json)?;
    decode(&json)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_format_is_fixed() {
        let hello = FromGuest::Hello { version: VERSION, token: "t".to_owned() };
        assert_eq!(encode(&hello).unwrap()[4..], *br#"{"type":"hello","version":2,"token":"t"}"#);
        let kill = FromServer::Kill { exec_id: "e".to_owned() };
        assert_eq!(encode(&kill).unwrap()[4..], *br#"{"type":"kill","exec_id":"e"}"#);
    }

    #[test]
    fn a_frame_that_is_too_large_is_refused_before_it_is_read() {
        let mut bytes: &[u8] = &u32::MAX.to_be_bytes();
        assert!(read_frame::<FromGuest>(&mut bytes).unwrap_err().to_string().contains("too large"));
    }

    #[test]
    fn the_largest_pieces_fit_into_a_frame() {
        let tail = Bytes(vec![255; MAX_OUTPUT_BYTES / 4]);
        let rest = Rest { dropped_bytes: u64::MAX, tail };
        let exited = FromGuest::Exited {
            exec_id: "x".repeat(128),
            exit: Exit::Code(-1),
            stdout: rest.clone(),
            stderr: rest,
            duration_ms: u64::MAX,
        };
        encode(&exited).unwrap();
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = read_frame::<FromGuest>(&mut bytes.as_slice());
            let _ = read_frame::<FromServer>(&mut bytes.as_slice());
        }

        #[test]
        fn output_survives_the_wire(data: Vec<u8>, offset: u64) {
            let frame =
                FromGuest::Output { exec_id: "e".to_owned(), stream: Stream::Stdout, offset, data: Bytes(data) };
            let bytes = encode(&frame).unwrap();
            prop_assert_eq!(read_frame::<FromGuest>(&mut bytes.as_slice()).unwrap(), frame);
        }
    }
}
