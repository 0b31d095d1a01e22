//! Snappy: xerial's framing, as Java's clients write it, and raw, as some others do; written with xerial's.
//!
//! xerial: an eight-byte magic, two 32-bit versions, then blocks of 32 KiB of plain bytes, each behind its compressed
//! length (32 bits, big-endian).

use std::cell::RefCell;

use snap::raw::{Decoder, Encoder, decompress_len, max_compress_len};

use super::{CodecError, invalid};
use crate::wire::Reader;

const XERIAL_MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
/// Version, then the least version that can read it.
const XERIAL_VERSIONS: [u8; 8] = [0, 0, 0, 1, 0, 0, 0, 1];
const BLOCK: usize = 32 * 1024;

/// No element of the format yields more: a copy of 64 bytes takes three.
const MOST_FROM_3_BYTES: usize = 64;

thread_local! {
    static ENCODER: RefCell<Encoder> = RefCell::new(Encoder::new());
}

pub(super) fn compress(plain: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
    out.extend_from_slice(&XERIAL_MAGIC);
    out.extend_from_slice(&XERIAL_VERSIONS);
    ENCODER.with_borrow_mut(|encoder| {
        for block in plain.chunks(BLOCK) {
            let length_at = out.len();
            let block_at = length_at + 4;
            out.resize(block_at + max_compress_len(block.len()), 0);
            let room = out.get_mut(block_at..).unwrap_or_default();
            let length = encoder.compress(block, room).map_err(invalid)?;
            out.truncate(block_at + length);
            let encoded = u32::try_from(length).map_err(invalid)?.to_be_bytes();
            if let Some(place) = out.get_mut(length_at..block_at) {
                place.copy_from_slice(&encoded);
            }
        }
        Ok(())
    })
}

pub(super) fn decompress(compressed: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), CodecError> {
    if !compressed.starts_with(&XERIAL_MAGIC) {
        return raw(compressed, limit, out);
    }
    let mut reader = Reader::new(compressed);
    while !reader.is_empty() {
        // A stream may be several written one after the other, each with its header.
        if reader.rest().starts_with(&XERIAL_MAGIC) {
            reader.skip(XERIAL_MAGIC.len() + XERIAL_VERSIONS.len(), "xerial header").map_err(invalid)?;
            continue;
        }
        let length = reader.u32("block length").map_err(invalid)?;
        let block = reader.bytes(crate::wire::to_usize(length), "block").map_err(invalid)?;
        raw(block, limit, out)?;
    }
    Ok(())
}

/// Appends one raw block.
fn raw(block: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), CodecError> {
    if block.is_empty() {
        return Err(invalid("an empty block"));
    }
    let claimed = decompress_len(block).map_err(invalid)?;
    if claimed / MOST_FROM_3_BYTES > block.len() / 3 + 1 {
        return Err(invalid(format_args!("{} bytes cannot become the {claimed} that they claim", block.len())));
    }
    let start = out.len();
    let end = start.saturating_add(claimed);
    if end > limit {
        return Err(CodecError::TooLarge { limit });
    }
    out.resize(end, 0);
    let written = Decoder::new().decompress(block, out.get_mut(start..).unwrap_or_default()).map_err(invalid)?;
    if written == claimed { Ok(()) } else { Err(invalid("a block is shorter than it claims")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decompressed(bytes: &[u8], limit: usize) -> Result<Vec<u8>, CodecError> {
        let mut out = Vec::new();
        decompress(bytes, limit, &mut out).map(|()| out)
    }

    #[test]
    fn raw_snappy_is_read_as_well() {
        let plain = b"raw raw raw raw raw raw raw raw".repeat(9);
        let raw = Encoder::new().compress_vec(&plain).expect("compresses");
        assert_eq!(decompressed(&raw, plain.len()), Ok(plain));
    }

    #[test]
    fn streams_written_one_after_the_other_are_one() {
        let mut both = Vec::new();
        compress(b"one,", &mut both).expect("compresses");
        compress(b"two", &mut both).expect("compresses");
        assert_eq!(decompressed(&both, 100), Ok(b"one,two".to_vec()));
    }

    #[test]
    fn a_claimed_length_of_four_gibibytes_reserves_nothing() {
        let claim = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00, 0x00];
        let framed = [&XERIAL_MAGIC[..], &XERIAL_VERSIONS, &[0, 0, 0, 7], &claim].concat();
        for bytes in [&claim[..], &framed] {
            let mut out = Vec::new();
            assert!(matches!(decompress(bytes, usize::MAX, &mut out), Err(CodecError::Invalid(_))));
            assert_eq!(out.capacity(), 0);
        }
    }

    #[test]
    fn a_block_beyond_the_bytes_is_refused() {
        for length in [[0, 0, 0, 9], [0x7f, 0xff, 0xff, 0xff], [0xff, 0xff, 0xff, 0xff], [0, 0, 0, 0]] {
            let bytes = [&XERIAL_MAGIC[..], &XERIAL_VERSIONS, &length, &[1, 0, b'x']].concat();
            assert!(matches!(decompressed(&bytes, 1000), Err(CodecError::Invalid(_))), "{length:?}");
        }
    }
}
