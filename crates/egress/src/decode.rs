//! Decompresses responses so that secret values in them can be masked. Some hosts compress a response although the
//! proxy requested `identity`.

use std::io::{self, Write};

use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

/// The size of a chunk: the number of compressed bytes that are decompressed at a time.
const CHUNK_BYTES: usize = 4 * 1024;
/// The maximum size of a chunk after decompression, in bytes: about twice the size that a gzip chunk can reach. A
/// larger chunk indicates a decompression bomb, and the response fails.
const MAX_DECODED_CHUNK_BYTES: usize = 8 * 1024 * 1024;
/// The size of the output buffer of the brotli decoder, in bytes.
const BROTLI_BUFFER_BYTES: usize = 4 * 1024;
/// The maximum window size of zstd, given as its base-2 logarithm: 8 MiB, as in browsers (RFC 9659). A response with a
/// larger window fails.
const MAX_ZSTD_WINDOW_LOG: u32 = 23;

/// Decompresses the body of one response.
pub(crate) struct Decoder {
    kind: Kind,
    has_input: bool,
}

enum Kind {
    Gzip(MultiGzDecoder<Sink>),
    /// The encoding `deflate`, until the first byte of the body arrives. This byte shows whether the body is zlib data,
    /// as the standard requires, or raw deflate data, which some servers send.
    Deflate(Sink),
    Zlib(ZlibDecoder<Sink>),
    Raw(DeflateDecoder<Sink>),
    Brotli(Box<brotli::DecompressorWriter<Sink>>),
    Zstd(zstd::stream::write::Decoder<'static, Sink>),
}

/// Collects the decompressed bytes of one chunk, and fails if there are more than `MAX_DECODED_CHUNK_BYTES`.
#[derive(Default)]
pub(crate) struct Sink(Vec<u8>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_DECODED_CHUNK_BYTES {
            return Err(io::Error::other("the compression ratio of the response is too high"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Decoder {
    /// Creates a decoder for the value of a `Content-Encoding` header. Returns `None` if the encoding is not
    /// supported.
    pub(crate) fn for_encoding(encoding: &str) -> Option<Self> {
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
        Some(Self { kind, has_input: false })
    }

    /// Decompresses the next chunk of the body. Returns the newly decompressed bytes. There may be none until more
    /// input arrives.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        self.has_input |= !bytes.is_empty();
        if let (Kind::Deflate(_), Some(first)) = (&self.kind, bytes.first()) {
            let has_head = first & 15 == 8;
            self.kind = if has_head {
                Kind::Zlib(ZlibDecoder::new(Sink::default()))
            } else {
                Kind::Raw(DeflateDecoder::new(Sink::default()))
            };
        }
        let mut decoded = Vec::new();
        for chunk in bytes.chunks(CHUNK_BYTES) {
            self.kind.writer().write_all(chunk)?;
            self.kind.writer().flush()?;
            decoded.append(&mut self.kind.sink().0);
        }
        Ok(decoded)
    }

    /// Ends the body and returns the remaining decompressed bytes. Fails if the body is truncated, except for zstd,
    /// where a truncated body is not detected. An empty body is valid.
    pub(crate) fn finish(mut self) -> io::Result<Vec<u8>> {
        if !self.has_input {
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

    fn compress(encoding: &str, text: &[u8]) -> Vec<u8> {
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

    fn decompress(name: &str, compressed: &[u8], chunk: usize) -> io::Result<Vec<u8>> {
        let mut decoder = Decoder::for_encoding(name).unwrap();
        let mut out = Vec::new();
        for chunk in compressed.chunks(chunk) {
            out.extend(decoder.push(chunk)?);
        }
        out.extend(decoder.finish()?);
        Ok(out)
    }

    const NAMES: [(&str, &str); 5] =
        [("gzip", "gzip"), ("zlib", "deflate"), ("raw", "deflate"), ("br", "br"), ("zstd", "zstd")];

    #[test]
    fn each_encoding_is_decoded_in_chunks_of_any_size() {
        let text = "some text that repeats itself, some text that does. ".repeat(500);
        for (encoding, name) in NAMES {
            let compressed = compress(encoding, text.as_bytes());
            for chunk in [1, 7, compressed.len()] {
                assert_eq!(
                    decompress(name, &compressed, chunk).unwrap(),
                    text.as_bytes(),
                    "{encoding} by {chunk}"
                );
            }
            assert_eq!(decompress(name, &[], 1).unwrap(), b"", "{encoding}");
            if encoding != "zstd" {
                assert!(
                    decompress(name, &compressed[..compressed.len() / 2], 7).is_err(),
                    "{encoding} truncated"
                );
            }
        }
    }

    #[test]
    fn flushed_data_is_decoded_at_once() {
        let mut compressed = Vec::new();
        let mut encoder = GzEncoder::new(&mut compressed, Compression::default());
        encoder.write_all(b"event one\n\n").unwrap();
        encoder.flush().unwrap();
        drop(encoder);
        let whole = compressed.len() - 10;
        assert_eq!(
            Decoder::for_encoding("gzip").unwrap().push(&compressed[..whole]).unwrap(),
            b"event one\n\n"
        );
    }

    #[test]
    fn decompression_bombs_are_rejected() {
        let zeros = vec![0; 256 * 1024 * 1024];
        for encoding in ["br", "zstd"] {
            let compressed = compress(encoding, &zeros);
            assert!(compressed.len() < 100_000, "{encoding}: {}", compressed.len());
            assert!(decompress(encoding, &compressed, compressed.len()).is_err(), "{encoding}");
        }
    }

    #[test]
    fn invalid_data_and_unknown_encodings_are_rejected() {
        for (_, name) in NAMES {
            assert!(decompress(name, &[0x18; 64], 64).is_err(), "{name}");
        }
        for unknown in ["", "identity2", "compress", "gzip, br", "dcb"] {
            assert!(Decoder::for_encoding(unknown).is_none(), "{unknown}");
        }
    }
}
