//! Replies that come compressed all the same, opened so that they can be masked.

use std::io::{self, Write};

use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

/// So many bytes are opened at a time,
const PIECE_BYTES: usize = 4 * 1024;
/// and may become so many: twice the most that gzip can pack. What packs more than that is made to fill memory.
const MAX_OPENED_PIECE_BYTES: usize = 8 * 1024 * 1024;
/// The buffer between brotli and what it writes to.
const BROTLI_BUFFER_BYTES: usize = 4 * 1024;
/// The most memory that a reply in zstd may ask for, as a power of two: 8 MiB, what browsers allow (RFC 9659).
const MAX_ZSTD_WINDOW_LOG: u32 = 23;

/// Opens one body.
pub(crate) struct Decoder {
    kind: Kind,
    has_begun: bool,
}

enum Kind {
    Gzip(MultiGzDecoder<Sink>),
    /// `deflate` is meant to have a head of its own, and some servers send it without; its first byte tells.
    Deflate(Sink),
    Zlib(ZlibDecoder<Sink>),
    Raw(DeflateDecoder<Sink>),
    Brotli(Box<brotli::DecompressorWriter<Sink>>),
    Zstd(zstd::stream::write::Decoder<'static, Sink>),
}

/// Takes what is opened, up to its bound.
#[derive(Default)]
pub(crate) struct Sink(Vec<u8>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OPENED_PIECE_BYTES {
            return Err(io::Error::other("the reply is compressed beyond measure"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Decoder {
    /// For an encoding as `Content-Encoding` names it; `None` if it is not known here.
    pub(crate) fn of(encoding: &str) -> Option<Self> {
        let kind = match encoding.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Kind::Gzip(MultiGzDecoder::new(Sink::default())),
            "deflate" => Kind::Deflate(Sink::default()),
            "br" => {
                let decoder = brotli::DecompressorWriter::new(Sink::default(), BROTLI_BUFFER_BYTES);
                Kind::Brotli(Box::new(decoder))
            }
            "zstd" => {
                let mut decoder = zstd::stream::write::Decoder::new(Sink::default()).ok()?;
                decoder.window_log_max(MAX_ZSTD_WINDOW_LOG).ok()?;
                Kind::Zstd(decoder)
            }
            _ => return None,
        };
        Some(Self { kind, has_begun: false })
    }

    /// What these bytes become.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        self.has_begun |= !bytes.is_empty();
        if let (Kind::Deflate(_), Some(first)) = (&self.kind, bytes.first()) {
            let has_head = first & 15 == 8;
            self.kind = if has_head {
                Kind::Zlib(ZlibDecoder::new(Sink::default()))
            } else {
                Kind::Raw(DeflateDecoder::new(Sink::default()))
            };
        }
        let mut opened = Vec::new();
        for piece in bytes.chunks(PIECE_BYTES) {
            self.kind.writer().write_all(piece)?;
            self.kind.writer().flush()?;
            opened.append(&mut self.kind.sink().0);
        }
        Ok(opened)
    }

    /// What is left at the end. A body that breaks off is an error, an empty one is not.
    pub(crate) fn finish(mut self) -> io::Result<Vec<u8>> {
        if !self.has_begun {
            return Ok(Vec::new());
        }
        match &mut self.kind {
            Kind::Gzip(decoder) => decoder.try_finish()?,
            Kind::Zlib(decoder) => decoder.try_finish()?,
            Kind::Raw(decoder) => decoder.try_finish()?,
            Kind::Brotli(decoder) => decoder.close()?,
            Kind::Zstd(decoder) => decoder.flush()?,
            Kind::Deflate(_) => {}
        }
        Ok(std::mem::take(&mut self.kind.sink().0))
    }
}

impl Kind {
    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Gzip(decoder) => decoder,
            Self::Deflate(sink) => sink,
            Self::Zlib(decoder) => decoder,
            Self::Raw(decoder) => decoder,
            Self::Brotli(decoder) => decoder,
            Self::Zstd(decoder) => decoder,
        }
    }

    fn sink(&mut self) -> &mut Sink {
        match self {
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Deflate(sink) => sink,
            Self::Zlib(decoder) => decoder.get_mut(),
            Self::Raw(decoder) => decoder.get_mut(),
            Self::Brotli(decoder) => decoder.get_mut(),
            Self::Zstd(decoder) => decoder.get_mut(),
        }
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    fn packed(encoding: &str, text: &[u8]) -> Vec<u8> {
        fn end(mut writer: impl Write, text: &[u8]) {
            writer.write_all(text).unwrap();
            writer.flush().unwrap();
        }
        let mut out = Vec::new();
        match encoding {
            "gzip" => end(GzEncoder::new(&mut out, Compression::best()), text),
            "zlib" => end(ZlibEncoder::new(&mut out, Compression::best()), text),
            "raw" => end(DeflateEncoder::new(&mut out, Compression::best()), text),
            "br" => end(brotli::CompressorWriter::new(&mut out, 4096, 9, 22), text),
            _ => end(zstd::stream::write::Encoder::new(&mut out, 19).unwrap().auto_finish(), text),
        }
        out
    }

    fn opened(name: &str, packed: &[u8], piece: usize) -> io::Result<Vec<u8>> {
        let mut decoder = Decoder::of(name).unwrap();
        let mut out = Vec::new();
        for piece in packed.chunks(piece) {
            out.extend(decoder.push(piece)?);
        }
        out.extend(decoder.finish()?);
        Ok(out)
    }

    const NAMES: [(&str, &str); 5] =
        [("gzip", "gzip"), ("zlib", "deflate"), ("raw", "deflate"), ("br", "br"), ("zstd", "zstd")];

    #[test]
    fn each_encoding_is_opened_however_it_is_cut() {
        let text = "some text that repeats itself, some text that does. ".repeat(500);
        for (encoding, name) in NAMES {
            let packed = packed(encoding, text.as_bytes());
            for piece in [1, 7, packed.len()] {
                assert_eq!(opened(name, &packed, piece).unwrap(), text.as_bytes(), "{encoding} by {piece}");
            }
            assert_eq!(opened(name, &[], 1).unwrap(), b"", "{encoding}");
            if encoding != "zstd" {
                assert!(opened(name, &packed[..packed.len() / 2], 7).is_err(), "{encoding} broken off");
            }
        }
    }

    #[test]
    fn what_was_flushed_is_there_at_once() {
        let mut packed = Vec::new();
        let mut encoder = GzEncoder::new(&mut packed, Compression::default());
        encoder.write_all(b"event one\n\n").unwrap();
        encoder.flush().unwrap();
        drop(encoder);
        let whole = packed.len() - 10;
        assert_eq!(Decoder::of("gzip").unwrap().push(&packed[..whole]).unwrap(), b"event one\n\n");
    }

    #[test]
    fn what_is_packed_beyond_measure_is_refused() {
        let zeros = vec![0; 256 * 1024 * 1024];
        for encoding in ["br", "zstd"] {
            let packed = packed(encoding, &zeros);
            assert!(packed.len() < 100_000, "{encoding}: {}", packed.len());
            assert!(opened(encoding, &packed, packed.len()).is_err(), "{encoding}");
        }
    }

    #[test]
    fn garbage_is_an_error_and_an_unknown_encoding_is_none() {
        for (_, name) in NAMES {
            assert!(opened(name, &[0x18; 64], 64).is_err(), "{name}");
        }
        for unknown in ["", "identity2", "compress", "gzip, br", "dcb"] {
            assert!(Decoder::of(unknown).is_none(), "{unknown}");
        }
    }
}
