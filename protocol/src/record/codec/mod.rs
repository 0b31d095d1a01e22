//! Packing and unpacking the records of a batch, with a bound on what unpacking may produce.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod snappy;

use std::{
    cell::RefCell,
    io::{Read, Write},
};

use bytes::Bytes;

use super::{BatchError, Compression};

/// Why bytes cannot be unpacked (or packed).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CodecError {
    TooLarge { limit: usize },
    Invalid(String),
}

impl CodecError {
    pub(super) fn at(self, offset: i64, codec: Compression) -> BatchError {
        match self {
            Self::TooLarge { limit } => BatchError::TooLarge { limit },
            Self::Invalid(reason) => BatchError::Codec { offset, codec, reason },
        }
    }

    fn invalid(error: impl ToString) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// zstd's level 1 is both faster and denser than its default 3 on records of JSON.
const ZSTD_LEVEL: i32 = 1;
const GZIP_LEVEL: u32 = 6;

thread_local! {
    static ZSTD: RefCell<Option<(i32, zstd::bulk::Compressor<'static>)>> = const { RefCell::new(None) };
}

/// Packs into `out`. `level` is the codec's own; None = ours.
pub(super) fn compress(
    codec: Compression,
    level: Option<i32>,
    input: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    match codec {
        Compression::None => out.extend_from_slice(input),
        Compression::Gzip => {
            let level = level.and_then(|level| u32::try_from(level).ok()).unwrap_or(GZIP_LEVEL).min(9);
            let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::new(level));
            encoder.write_all(input).and_then(|()| encoder.finish().map(|_| ())).map_err(CodecError::invalid)?;
        }
        Compression::Snappy => snappy::compress(input, out)?,
        Compression::Lz4 => {
            let info = lz4_flex::frame::FrameInfo::new()
                .block_mode(lz4_flex::frame::BlockMode::Independent)
                .block_size(lz4_flex::frame::BlockSize::Max64KB);
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, out);
            encoder.write_all(input).map_err(CodecError::invalid)?;
            encoder.finish().map_err(CodecError::invalid)?;
        }
        Compression::Zstd => {
            let level = level.unwrap_or(ZSTD_LEVEL);
            let packed = ZSTD.with_borrow_mut(|kept| {
                if kept.as_ref().is_none_or(|(of, _)| *of != level) {
                    *kept = Some((level, zstd::bulk::Compressor::new(level)?));
                }
                match kept {
                    Some((_, compressor)) => compressor.compress(input),
                    None => Err(std::io::Error::other("no compressor")),
                }
            });
            out.extend_from_slice(&packed.map_err(CodecError::invalid)?);
        }
    }
    Ok(())
}

/// Unpacks at most `limit` bytes.
pub(super) fn decompress(codec: Compression, input: &[u8], limit: usize) -> Result<Bytes, CodecError> {
    match codec {
        Compression::None => Ok(Bytes::copy_from_slice(input)),
        Compression::Gzip => read_bounded(flate2::read::MultiGzDecoder::new(input), limit),
        Compression::Snappy => snappy::decompress(input, limit),
        Compression::Lz4 => read_bounded(lz4_flex::frame::FrameDecoder::new(input), limit),
        Compression::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(CodecError::invalid)?;
            read_bounded(decoder, limit)
        }
    }
}

/// Grows with what really comes out, never with what a header claims.
fn read_bounded(reader: impl Read, limit: usize) -> Result<Bytes, CodecError> {
    let mut out = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    reader.take(most).read_to_end(&mut out).map_err(CodecError::invalid)?;
    if out.len() > limit {
        return Err(CodecError::TooLarge { limit });
    }
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PACKED: [Compression; 4] = [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

    fn pack(codec: Compression, input: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        compress(codec, None, input, &mut out).expect("packs");
        out
    }

    #[test]
    fn a_bomb_is_refused_at_the_limit() {
        let zeros = vec![0; 8 << 20];
        for codec in PACKED {
            let bomb = pack(codec, &zeros);
            assert!(bomb.len() < zeros.len() / 10, "{codec}");
            assert_eq!(decompress(codec, &bomb, 1 << 20), Err(CodecError::TooLarge { limit: 1 << 20 }), "{codec}");
            assert_eq!(decompress(codec, &bomb, zeros.len()).map(|bytes| bytes.len()), Ok(zeros.len()), "{codec}");
        }
    }

    #[test]
    fn cut_and_broken_bytes_are_errors() {
        let text = br#"{"name":"value","list":[1,2,3]}"#.repeat(40);
        for codec in PACKED {
            let packed = pack(codec, &text);
            for cut in 1..packed.len() {
                let unpacked = decompress(codec, &packed[..cut], 1 << 20);
                // Only what follows the last block may be missing unnoticed: never a part of the text.
                assert!(unpacked.is_err() || unpacked == Ok(text.clone().into()), "{codec} cut at {cut}");
            }
            assert!(decompress(codec, b"HTTP/1.1 400 Bad Request\r\n\r\n", 1 << 20).is_err(), "{codec}");
        }
    }

    /// Made with Python's gzip, python-snappy, lz4 and zstandard (see golden/README).
    #[test]
    fn what_other_libraries_packed_is_unpacked() {
        let golden = b"kafka-sidecar golden bytes, kafka-sidecar golden bytes";
        for (codec, hex) in [
            (Compression::Gzip, include_str!("golden/gzip.hex")),
            (Compression::Snappy, include_str!("golden/snappy-raw.hex")),
            (Compression::Snappy, include_str!("golden/snappy-xerial.hex")),
            (Compression::Lz4, include_str!("golden/lz4.hex")),
            (Compression::Zstd, include_str!("golden/zstd.hex")),
        ] {
            let hex: Vec<u8> = hex.trim().bytes().collect();
            let packed: Vec<u8> = hex
                .chunks(2)
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("text"), 16).expect("hex"))
                .collect();
            assert_eq!(decompress(codec, &packed, 1000).expect("unpacks"), &golden[..], "{codec}");
        }
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(input in proptest::collection::vec(any::<u8>(), 0..70_000)) {
            for codec in PACKED {
                prop_assert_eq!(decompress(codec, &pack(codec, &input), input.len()), Ok(input.clone().into()));
            }
        }

        #[test]
        fn noise_never_panics(input in proptest::collection::vec(any::<u8>(), 0..300)) {
            for codec in PACKED {
                let _ = decompress(codec, &input, 1 << 16);
            }
        }
    }
}
