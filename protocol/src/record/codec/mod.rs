//! The codecs of a batch's records, each bounded by what it may produce.
//!
//! Every codec writes into a buffer of its thread that is used again; nothing is reserved because the compressed bytes
//! claim a size, only because so many compressed bytes can become so many. Of batches they know nothing.
//! [`Compression`] is the main type.

mod gzip;
mod lz4;
mod snappy;
mod zstd;

use std::{cell::RefCell, fmt, str::FromStr};

use bytes::Bytes;

use super::error::BatchError;

/// `compression.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    #[default]
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Compression {
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The number in a batch's attributes.
    pub const fn code(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// None for a number that Kafka does not define.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|compression| compression.code() == code)
    }

    /// Kafka's name of it in `compression.type`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A `compression.type` that Kafka does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of none, gzip, snappy, lz4, zstd")]
pub struct UnknownCompression(pub String);

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(name: &str) -> Result<Self, UnknownCompression> {
        Self::ALL
            .into_iter()
            .find(|compression| compression.name() == name)
            .ok_or_else(|| UnknownCompression(name.to_owned()))
    }
}

/// What went wrong inside a codec, which does not know the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CodecError {
    /// It would produce more than this; stopped.
    TooLarge {
        limit: usize,
    },
    Invalid(String),
}

impl CodecError {
    pub(super) fn of_batch(self, offset: i64, compression: Compression) -> BatchError {
        match self {
            Self::TooLarge { limit } => BatchError::DecompressedTooLarge { offset, compression, limit },
            Self::Invalid(reason) => BatchError::Decompress { offset, compression, reason },
        }
    }
}

fn invalid(reason: impl fmt::Display) -> CodecError {
    CodecError::Invalid(reason.to_string())
}

/// A thread's buffer is kept for the next batch up to this size; a larger result leaves with its buffer.
const KEPT_CAPACITY: usize = 256 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Decompresses to at most `limit` bytes. The result takes no more memory than its length.
pub(super) fn decompress(compression: Compression, compressed: &[u8], limit: usize) -> Result<Bytes, CodecError> {
    in_scratch(|out| match compression {
        Compression::None if compressed.len() > limit => Err(CodecError::TooLarge { limit }),
        Compression::None => {
            out.extend_from_slice(compressed);
            Ok(())
        }
        Compression::Gzip => gzip::decompress(compressed, limit, out),
        Compression::Snappy => snappy::decompress(compressed, limit, out),
        Compression::Lz4 => lz4::decompress(compressed, limit, out),
        Compression::Zstd => zstd::decompress(compressed, limit, out),
    })
}

/// Appends the compressed form of `plain` to `out`. `level` is the codec's own, cut to its range; gzip (6 if not given)
/// and zstd (3) have levels, the others do not.
pub(super) fn compress(
    compression: Compression,
    level: Option<i32>,
    plain: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    match compression {
        Compression::None => {
            out.extend_from_slice(plain);
            Ok(())
        }
        Compression::Gzip => gzip::compress(plain, level, out),
        Compression::Snappy => snappy::compress(plain, out),
        Compression::Lz4 => lz4::compress(plain, out),
        Compression::Zstd => zstd::compress(plain, level, out),
    }
}

fn in_scratch(fill: impl FnOnce(&mut Vec<u8>) -> Result<(), CodecError>) -> Result<Bytes, CodecError> {
    let mut out = SCRATCH.take();
    out.clear();
    let filled = fill(&mut out);
    let result = filled.map(|()| {
        if out.len() > KEPT_CAPACITY {
            let mut all = std::mem::take(&mut out);
            all.shrink_to_fit();
            Bytes::from(all)
        } else {
            Bytes::copy_from_slice(&out)
        }
    });
    if out.capacity() <= KEPT_CAPACITY {
        SCRATCH.set(out);
    }
    result
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CODECS: [Compression; 4] = [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

    fn compressed(compression: Compression, level: Option<i32>, plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        compress(compression, level, plain, &mut out).expect("compresses");
        out
    }

    #[test]
    fn names_are_kafkas_and_come_back() {
        for compression in Compression::ALL {
            assert_eq!(compression.to_string().parse(), Ok(compression));
            assert_eq!(Compression::from_code(compression.code()), Some(compression));
        }
        assert_eq!("LZ4".parse::<Compression>(), Err(UnknownCompression("LZ4".to_owned())));
        assert_eq!(Compression::from_code(5), None);
    }

    #[test]
    fn the_limit_is_exact_in_every_codec() {
        for plain in [vec![7_u8; 1], vec![7; 100_000], (0..70_000_u32).flat_map(u32::to_le_bytes).collect()] {
            for compression in Compression::ALL {
                let small = compressed(compression, None, &plain);
                let at_limit = decompress(compression, &small, plain.len()).expect("fits exactly");
                assert_eq!(at_limit, plain, "{compression}");
                assert_eq!(
                    decompress(compression, &small, plain.len() - 1),
                    Err(CodecError::TooLarge { limit: plain.len() - 1 }),
                    "{compression}, {} bytes",
                    plain.len()
                );
            }
        }
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit() {
        let plain = vec![0_u8; 64 << 20];
        for compression in CODECS {
            let bomb = compressed(compression, None, &plain);
            assert!(bomb.len() < plain.len() / 20, "{compression}: {} bytes", bomb.len());
            for limit in [0, 1, 1 << 20] {
                assert_eq!(decompress(compression, &bomb, limit), Err(CodecError::TooLarge { limit }), "{compression}");
            }
        }
        // What a thread keeps between batches is bounded even after these.
        assert!(SCRATCH.with_borrow(Vec::capacity) <= KEPT_CAPACITY);
    }

    #[test]
    fn cut_anywhere_it_is_an_error_or_ends_between_blocks() {
        let plain: Vec<u8> = (0..40_000_u32).flat_map(|i| (i % 251 * i).to_le_bytes()).collect();
        for compression in CODECS {
            let whole = compressed(compression, None, &plain);
            let step = (whole.len() / 500).max(1);
            for cut in (0..whole.len()).step_by(step).chain(whole.len().saturating_sub(30)..whole.len()) {
                let result = decompress(compression, &whole[..cut], plain.len() * 2);
                match result {
                    Err(CodecError::Invalid(_)) => {}
                    // xerial's framing has no end: a cut between two blocks shows in the records only.
                    Ok(start) if compression == Compression::Snappy => {
                        assert!(plain.starts_with(&start) && start != plain);
                    }
                    other => panic!("{compression} cut at {cut}: {other:?}"),
                }
            }
        }
    }

    /// How they were made: `golden/README`.
    #[test]
    fn what_other_libraries_packed_is_unpacked() {
        for (compression, hex) in [
            (Compression::Gzip, include_str!("golden/gzip.hex")),
            (Compression::Snappy, include_str!("golden/snappy-raw.hex")),
            (Compression::Snappy, include_str!("golden/snappy-xerial.hex")),
            (Compression::Lz4, include_str!("golden/lz4.hex")),
            (Compression::Zstd, include_str!("golden/zstd.hex")),
        ] {
            let digits: Vec<u32> = hex.trim().chars().map(|digit| digit.to_digit(16).expect("hex")).collect();
            let packed: Vec<u8> = digits.chunks_exact(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect();
            let expected = Bytes::from_static(b"kafka-sidecar golden bytes, kafka-sidecar golden bytes");
            assert_eq!(decompress(compression, &packed, 1000), Ok(expected), "{compression}");
            assert!(decompress(compression, b"HTTP/1.1 400 Bad Request\r\n\r\n", 1000).is_err(), "{compression}");
        }
    }

    #[test]
    fn levels_beyond_the_range_are_cut_to_it() {
        let plain = vec![b'x'; 5000];
        for compression in CODECS {
            for level in [Some(i32::MIN), Some(-1), Some(0), Some(1), Some(i32::MAX), None] {
                let small = compressed(compression, level, &plain);
                assert_eq!(
                    decompress(compression, &small, 5000),
                    Ok(Bytes::from(plain.clone())),
                    "{compression} {level:?}"
                );
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_was_compressed_comes_back(
            plain in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..2000),
                (any::<[u8; 7]>(), 0..30_000_usize).prop_map(|(some, times)| some.repeat(times)),
            ],
        ) {
            for compression in CODECS {
                let small = compressed(compression, None, &plain);
                prop_assert_eq!(&decompress(compression, &small, plain.len()).expect("valid")[..], &plain[..]);
            }
        }

        #[test]
        fn no_bytes_make_a_codec_panic(junk in proptest::collection::vec(any::<u8>(), 0..300), at in any::<prop::sample::Index>()) {
            for compression in CODECS {
                let _ = decompress(compression, &junk, 1 << 20);
                // Junk inside something that starts well gets further.
                let mut valid = compressed(compression, None, &[42; 3000]);
                let at = at.index(valid.len());
                valid.splice(at.., junk.iter().copied());
                let _ = decompress(compression, &valid, 1 << 20);
            }
        }
    }
}
