//! Zstandard (RFC 8878), one or more frames, by the C library (KIP-110).
//!
//! Decompression goes in one step into one buffer, so that no window is allocated for what a frame header claims. How
//! large the buffer must be is read from the block headers: Java's clients write no content size.

use std::cell::RefCell;

use zstd::zstd_safe::{
    CCtx, CParameter, DCtx, ErrorCode, compress_bound, find_frame_compressed_size, get_error_name,
    get_frame_content_size, is_error_kind, zstd_sys::ZSTD_ErrorCode,
};

use super::{CodecError, invalid};
use crate::wire::{Reader, to_usize};

/// Kafka's default (KIP-390).
const DEFAULT_LEVEL: i32 = 3;
/// The most that one block can become.
const MOST_IN_A_BLOCK: usize = 128 * 1024;
const SKIPPABLE: u32 = 0x184d_2a50;

thread_local! {
    static COMPRESSOR: RefCell<CCtx<'static>> = RefCell::new(CCtx::default());
    static DECOMPRESSOR: RefCell<DCtx<'static>> = RefCell::new(DCtx::default());
}

pub(super) fn compress(plain: &[u8], level: Option<i32>, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let level = level.unwrap_or(DEFAULT_LEVEL).clamp(zstd::zstd_safe::min_c_level(), zstd::zstd_safe::max_c_level());
    COMPRESSOR.with_borrow_mut(|compressor| {
        compressor.set_parameter(CParameter::CompressionLevel(level)).map_err(named)?;
        let mut frame = Vec::with_capacity(compress_bound(plain.len()));
        compressor.compress2(&mut frame, plain).map_err(named)?;
        out.extend_from_slice(&frame);
        Ok(())
    })
}

pub(super) fn decompress(compressed: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), CodecError> {
    if compressed.is_empty() {
        return Err(invalid("no frame"));
    }
    let bound = bound(compressed)?;
    out.reserve(bound.min(limit));
    let written = DECOMPRESSOR.with_borrow_mut(|decompressor| decompressor.decompress(out, compressed));
    match written {
        // The buffer may have had more room than asked for.
        Ok(written) if written > limit => Err(CodecError::TooLarge { limit }),
        Ok(_) => Ok(()),
        Err(code) if bound > limit && is_error_kind(code, ZSTD_ErrorCode::ZSTD_error_dstSize_tooSmall) => {
            Err(CodecError::TooLarge { limit })
        }
        Err(code) => Err(named(code)),
    }
}

fn named(code: ErrorCode) -> CodecError {
    invalid(get_error_name(code))
}

/// The most that these frames can become, by their blocks; a content size that a frame gives only lowers it.
fn bound(mut frames: &[u8]) -> Result<usize, CodecError> {
    let mut bound = 0_usize;
    while !frames.is_empty() {
        let length = find_frame_compressed_size(frames).map_err(named)?;
        let (frame, rest) = frames.split_at_checked(length).ok_or_else(|| invalid("a cut frame"))?;
        let content = match get_frame_content_size(frame) {
            Ok(Some(content)) => usize::try_from(content).unwrap_or(usize::MAX),
            Ok(None) => usize::MAX,
            Err(error) => return Err(invalid(error)),
        };
        bound = bound.saturating_add(blocks_bound(frame)?.min(content));
        frames = rest;
    }
    Ok(bound)
}

/// Sums what the blocks of one frame can become (RFC 8878, 3.1.1).
fn blocks_bound(frame: &[u8]) -> Result<usize, CodecError> {
    let mut reader = Reader::new(frame);
    let magic = u32::from_le_bytes(reader.array("magic").map_err(invalid)?);
    if magic & !0xf == SKIPPABLE {
        return Ok(0);
    }
    let descriptor = reader.u8("frame header").map_err(invalid)?;
    let single_segment = descriptor & 0x20 != 0;
    let window = usize::from(!single_segment);
    let dictionary = match descriptor & 3 {
        3 => 4,
        bytes => usize::from(bytes),
    };
    let content = match descriptor >> 6 {
        0 => usize::from(single_segment),
        1 => 2,
        2 => 4,
        _ => 8,
    };
    reader.skip(window + dictionary + content, "frame header").map_err(invalid)?;
    let mut bound = 0_usize;
    loop {
        let [low, middle, high] = reader.array("block header").map_err(invalid)?;
        let header = u32::from_le_bytes([low, middle, high, 0]);
        let size = to_usize(header >> 3);
        let (stored, most) = match header >> 1 & 3 {
            0 => (size, size),            // raw
            1 => (1, size),               // one byte, repeated
            _ => (size, MOST_IN_A_BLOCK), // compressed; the reserved type fails later
        };
        reader.skip(stored, "block").map_err(invalid)?;
        bound = bound.saturating_add(most);
        if header & 1 == 1 {
            return Ok(bound);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn decompressed(bytes: &[u8], limit: usize) -> Result<Vec<u8>, CodecError> {
        let mut out = Vec::new();
        decompress(bytes, limit, &mut out).map(|()| out)
    }

    /// As Java's clients write it: the size is not known when the frame begins.
    fn streamed(plain: &[u8]) -> Vec<u8> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).expect("an encoder");
        encoder.write_all(plain).expect("writes");
        encoder.finish().expect("ends")
    }

    #[test]
    fn frames_without_a_content_size_are_read_and_bounded() {
        for len in [1, 5000, 128 * 1024, 128 * 1024 + 1, 1_000_000] {
            let plain: Vec<u8> = (0..len).map(|i| (i * i / 7) as u8).collect();
            let frame = streamed(&plain);
            assert_eq!(get_frame_content_size(&frame).expect("a frame"), None);
            assert_eq!(decompressed(&frame, plain.len()), Ok(plain.clone()), "{len} bytes");
            assert_eq!(decompressed(&frame, len - 1), Err(CodecError::TooLarge { limit: len - 1 }), "{len} bytes");
        }
    }

    #[test]
    fn frames_one_after_the_other_are_one_stream_and_skippable_ones_are_left_out() {
        let skippable = [0x5e, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 0xaa, 0xbb];
        let both = [&streamed(b"one,")[..], &skippable, &streamed(b"two")].concat();
        assert_eq!(decompressed(&both, 100), Ok(b"one,two".to_vec()));
    }

    #[test]
    fn a_claimed_content_size_and_window_reserve_nothing() {
        // Single segment, a content size of 2^62 in eight bytes, one raw block of one byte.
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0xe0];
        frame.extend_from_slice(&(1_u64 << 62).to_le_bytes());
        frame.extend_from_slice(&[0x09, 0, 0, b'x']);
        let mut out = Vec::new();
        assert!(matches!(decompress(&frame, usize::MAX, &mut out), Err(CodecError::Invalid(_))));
        assert!(out.capacity() < 1024, "{}", out.capacity());
        // The largest window, no content size, the same block.
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 0x09, 0, 0, b'x'];
        let mut out = Vec::new();
        let _ = decompress(&frame, usize::MAX, &mut out);
        assert!(out.capacity() < 1024, "{}", out.capacity());
    }

    #[test]
    fn malformed_frames_are_refused() {
        for bytes in [&[][..], &[1, 2, 3, 4], &[0x28, 0xb5, 0x2f, 0xfd], &[0x5e, 0x2a, 0x4d, 0x18, 2, 0, 0]] {
            assert!(matches!(decompressed(bytes, 1000), Err(CodecError::Invalid(_))), "{bytes:?}");
        }
    }
}
