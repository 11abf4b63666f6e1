//! The frames that the server and the guest exchange, and their encoding.

use std::io::{self, Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The protocol version. A connection is accepted only if both sides have the same version.
pub const VERSION: u32 = 2;
/// The file name of the server's socket. The socket is in a host directory that is mounted into the sandbox.
pub const SOCKET_FILE: &str = "guest.sock";
/// The name of the file that contains the guest token, which proves the guest's identity to the server. The file is
/// next to the socket until the guest has connected.
pub const TOKEN_FILE: &str = "token";
/// The loopback port in the sandbox on which programs reach the egress proxy. The guest listens on it.
pub const PROXY_PORT: u16 = 3128;
/// The maximum size of a frame in bytes, not including the length prefix. Larger frames are rejected.
pub const MAX_FRAME_BYTES: usize = 1024 * 1024;
/// The maximum size of a command's standard input in bytes. Commands with larger input are rejected.
pub const MAX_STDIN_BYTES: usize = 512 * 1024;
/// The maximum number of bytes of command output in a single `Output` frame. Longer output is sent in several frames.
pub const MAX_CHUNK_BYTES: usize = 64 * 1024;
/// The maximum number of output bytes that are retained for a command. If there are more, bytes in the middle are
/// dropped.
pub const MAX_OUTPUT_BYTES: usize = 1024 * 1024;

/// A frame from the guest to the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromGuest {
    /// The first frame of the connection over which the guest receives the server's requests. Commands can connect to
    /// the socket too; `token` proves that the sender is the guest.
    Hello { version: u32, token: String },
    /// The first frame of a connection that the guest opens to forward a program's connection to the egress proxy.
    /// After the welcome frame, the connection carries the program's bytes, without frames.
    Carry { version: u32, token: String },
    /// A chunk of a command's output, sent while the command runs and again for each attach request. Only the beginning
    /// of the output is sent in this way; the end follows in the `Exited` frame. `offset` is the position of the
    /// chunk's first byte in the output stream.
    Output { exec_id: String, stream: Stream, offset: u64, data: Bytes },
    /// A command has ended. This frame is sent again for each attach request, until the server acknowledges the result.
    Exited { exec_id: String, exit: Exit, stdout: OutputTail, stderr: OutputTail, duration_ms: u64 },
    /// The command could not be started.
    Failed { exec_id: String, message: String },
    /// The guest does not know this command: either it was never started in this sandbox, or its result was already
    /// acknowledged.
    Unknown { exec_id: String },
}

/// A frame from the server to the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromServer {
    /// The reply to a valid `Hello` or `Carry` frame. If the first frame is invalid, the server closes the connection
    /// instead.
    Welcome { version: u32 },
    /// Starts a command. If a command with this id was already started, this frame is treated as an attach request for
    /// that command.
    Exec(Exec),
    /// Requests a command's retained output, and its result as soon as the command has ended.
    Attach { exec_id: String },
    /// Kills a command and its process group immediately.
    Kill { exec_id: String },
    /// Acknowledges that the server has stored the command's result. The guest then forgets the command.
    Ack { exec_id: String },
    /// Requests that the guest exit, which ends all processes in the sandbox.
    Shutdown,
}

/// A command that the guest runs in the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// The permanent id of the command. The server must choose ids of 1–128 bytes; the guest does not check the length.
    pub exec_id: String,
    pub argv: Vec<String>,
    /// Environment variables for this command, in addition to those of the sandbox.
    pub env: Vec<(String, String)>,
    pub cwd: String,
    pub stdin: Bytes,
    /// The time in milliseconds after which the command's process group receives SIGTERM and, shortly afterwards,
    /// SIGKILL.
    pub timeout_ms: u64,
    /// The maximum number of output bytes to retain. Standard output and standard error get half each. Of each stream,
    /// the beginning and the end are retained.
    pub output_limit_bytes: usize,
}

/// An output stream of a command: standard output or standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    Stdout,
    Stderr,
}

/// The rest of an output stream, after the beginning that was already sent: the number of dropped bytes, and the last
/// bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputTail {
    pub dropped_bytes: u64,
    pub tail: Bytes,
}

/// The reason why a command ended: it exited with a code, a signal ended it, its timeout expired, or the server
/// requested a kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    Code(i32),
    Signal(i32),
    TimedOut,
    Killed,
}

/// Binary data, encoded as a base64 string in JSON.
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

/// Encodes a frame as JSON with a length prefix.
///
/// # Errors
/// Fails if the frame is larger than [`MAX_FRAME_BYTES`].
pub fn encode<T: Serialize>(frame: &T) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(frame)?;
    let length = u32::try_from(json.len()).ok().filter(|_| json.len() <= MAX_FRAME_BYTES);
    let length = length.ok_or_else(|| {
        let message =
            format!("the frame is too large: {} bytes, the limit is {MAX_FRAME_BYTES} bytes", json.len());
        io::Error::new(io::ErrorKind::InvalidData, message)
    })?;
    let mut bytes = Vec::with_capacity(json.len() + 4);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&json);
    Ok(bytes)
}

/// Decodes the length prefix of a frame. Returns the length of its JSON in bytes.
///
/// # Errors
/// Fails if the length is larger than [`MAX_FRAME_BYTES`].
pub fn decode_length(prefix: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_be_bytes(prefix) as usize;
    if length > MAX_FRAME_BYTES {
        let message = format!("the frame is too large: {length} bytes, the limit is {MAX_FRAME_BYTES} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(length)
}

/// Decodes a frame from its JSON, without the length prefix.
///
/// # Errors
/// Fails if the JSON is not a frame of the expected type.
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
    fn an_oversized_frame_is_rejected_before_its_body_is_read() {
        let mut bytes: &[u8] = &u32::MAX.to_be_bytes();
        assert!(read_frame::<FromGuest>(&mut bytes).unwrap_err().to_string().contains("too large"));
    }

    #[test]
    fn an_exited_frame_of_maximum_size_can_be_encoded() {
        let tail = Bytes(vec![255; MAX_OUTPUT_BYTES / 4]);
        let output_tail = OutputTail { dropped_bytes: u64::MAX, tail };
        let exited = FromGuest::Exited {
            exec_id: "x".repeat(128),
            exit: Exit::Code(-1),
            stdout: output_tail.clone(),
            stderr: output_tail,
            duration_ms: u64::MAX,
        };
        encode(&exited).unwrap();
    }

    proptest! {
        #[test]
        fn decoding_arbitrary_bytes_does_not_panic(bytes: Vec<u8>) {
            let _ = read_frame::<FromGuest>(&mut bytes.as_slice());
            let _ = read_frame::<FromServer>(&mut bytes.as_slice());
        }

        #[test]
        fn an_output_frame_round_trips(data: Vec<u8>, offset: u64) {
            let frame =
                FromGuest::Output { exec_id: "e".to_owned(), stream: Stream::Stdout, offset, data: Bytes(data) };
            let bytes = encode(&frame).unwrap();
            prop_assert_eq!(read_frame::<FromGuest>(&mut bytes.as_slice()).unwrap(), frame);
        }
    }
}
