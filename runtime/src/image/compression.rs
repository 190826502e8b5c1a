//! Layers and archives as readable streams: gzip, zstd or plain, never longer than allowed.

use std::io::{self, BufRead, BufReader, Read};

/// How a blob is packed, told by its first bytes: media types lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// The largest window that a zstd stream may ask for, as a power of two: 128 MiB, zstd's own default bound.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
const BUFFER: usize = 128 << 10;

impl Compression {
    pub(super) fn of(first_bytes: &[u8]) -> Self {
        match first_bytes {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    pub(super) fn media_suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => "+gzip",
            Self::Zstd => "+zstd",
        }
    }
}

/// Decompresses a stream, whatever it is packed with.
pub(super) fn decoder<'a, R: Read + 'a>(source: R) -> io::Result<Box<dyn Read + 'a>> {
    let mut source = BufReader::with_capacity(BUFFER, source);
    Ok(match Compression::of(source.fill_buf()?) {
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
        Compression::None => Box::new(source),
    })
}

/// A stream that was longer than allowed.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("it unpacks to more than {max} bytes, which is the bound for its {packed} packed bytes")]
pub struct TooLong {
    /// The bound.
    pub max: u64,
    /// What the bound was computed from; 0 if it does not depend on it.
    pub packed: u64,
}

/// Fails the read that goes beyond a bound.
pub(super) struct Bounded<R> {
    inner: R,
    left: u64,
    refusal: TooLong,
}

impl<R: Read> Bounded<R> {
    pub(super) fn new(inner: R, refusal: TooLong) -> Self {
        Self { inner, left: refusal.max, refusal }
    }

    /// Bytes read so far.
    pub(super) fn passed(&self) -> u64 {
        self.refusal.max - self.left
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => self.left = left,
            None => return Err(io::Error::other(self.refusal)),
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read(packed: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        decoder(packed).expect("a decoder").read_to_end(&mut out).expect("read");
        out
    }

    #[test]
    fn gzip_of_several_members_zstd_of_several_frames_and_plain_bytes_are_read_whole() {
        let gzip = |text: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(text).expect("written");
            encoder.finish().expect("finished")
        };
        let zstd = |text: &[u8]| zstd::encode_all(text, 1).expect("packed");
        assert_eq!(read(&[gzip(b"one "), gzip(b"two")].concat()), b"one two");
        assert_eq!(read(&[zstd(b"one "), zstd(b"two")].concat()), b"one two");
        assert_eq!(read(b"plain"), b"plain");
        assert_eq!(read(b""), b"");
    }

    #[test]
    fn a_stream_longer_than_allowed_fails() {
        let refusal = TooLong { max: 10, packed: 0 };
        let mut out = Vec::new();
        Bounded::new(&[0_u8; 10][..], refusal).read_to_end(&mut out).expect("ten bytes are allowed");
        let error = Bounded::new(&[0_u8; 11][..], refusal).read_to_end(&mut out).expect_err("eleven are not");
        assert!(error.to_string().contains("more than 10 bytes"), "{error}");
    }
}
