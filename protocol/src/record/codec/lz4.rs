//! LZ4 in its frame format, with independent blocks, as Kafka writes it (KIP-57).
//!
//! Read are linked blocks, content sizes and checksums as well, since other clients write them. Checksums within the frame
//! are not computed: the batch's CRC-32C covers the same bytes.
//! Format: "LZ4 Frame Format Description" 1.6.

use std::cell::RefCell;

use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into_with_dict, get_maximum_output_size};

use super::{CodecError, invalid};
use crate::wire::{Reader, to_usize};

const MAGIC: [u8; 4] = 0x184d_2204_u32.to_le_bytes();
/// Skippable frames have one of sixteen magics.
const SKIPPABLE: u32 = 0x184d_2a50;
/// Version 1, independent blocks, no checksums, no content size; blocks of 64 KiB; and the checksum of these two bytes.
const DESCRIPTOR: [u8; 3] = [0x60, 0x40, 0x82];
const BLOCK: usize = 64 * 1024;
const STORED: u32 = 1 << 31;
const END_MARK: u32 = 0;

const VERSION_BITS: u8 = 0xc0;
const VERSION: u8 = 0x40;
const INDEPENDENT: u8 = 0x20;
const BLOCK_CHECKSUM: u8 = 0x10;
const CONTENT_SIZE: u8 = 0x08;
const CONTENT_CHECKSUM: u8 = 0x04;
const DICTIONARY: u8 = 0x01;

/// How far back a match may reach.
const WINDOW: usize = 64 * 1024;
/// One byte of a block yields at most this many: an extra length byte of a match.
const MOST_FROM_A_BYTE: usize = 255;

thread_local! {
    static TABLE: RefCell<CompressTable> = RefCell::new(CompressTable::large());
}

pub(super) fn compress(plain: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&DESCRIPTOR);
    TABLE.with_borrow_mut(|table| {
        for block in plain.chunks(BLOCK) {
            let length_at = out.len();
            let block_at = length_at + 4;
            out.resize(block_at + get_maximum_output_size(block.len()), 0);
            let room = out.get_mut(block_at..).unwrap_or_default();
            let length = compress_into_with_table(block, room, table).map_err(invalid)?;
            let length_field = if length < block.len() {
                out.truncate(block_at + length);
                u32::try_from(length).map_err(invalid)?
            } else {
                out.truncate(block_at);
                out.extend_from_slice(block);
                u32::try_from(block.len()).map_err(invalid)? | STORED
            };
            if let Some(place) = out.get_mut(length_at..block_at) {
                place.copy_from_slice(&length_field.to_le_bytes());
            }
        }
        out.extend_from_slice(&END_MARK.to_le_bytes());
        Ok(())
    })
}

pub(super) fn decompress(compressed: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), CodecError> {
    if compressed.is_empty() {
        return Err(invalid("no frame"));
    }
    let mut reader = Reader::new(compressed);
    while !reader.is_empty() {
        let magic = little_u32(&mut reader, "magic")?;
        if magic == u32::from_le_bytes(MAGIC) {
            frame(&mut reader, limit, out)?;
        } else if magic & !0xf == SKIPPABLE {
            let length = little_u32(&mut reader, "skippable frame")?;
            reader.skip(to_usize(length), "skippable frame").map_err(invalid)?;
        } else {
            return Err(invalid(format_args!("magic {magic:08x}")));
        }
    }
    Ok(())
}

/// Appends one frame, from behind its magic.
fn frame(reader: &mut Reader<'_>, limit: usize, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let start = out.len();
    let flags = reader.u8("frame flags").map_err(invalid)?;
    if flags & VERSION_BITS != VERSION {
        return Err(invalid(format_args!("frame version {}", flags >> 6)));
    }
    if flags & DICTIONARY != 0 {
        return Err(invalid("a frame with a dictionary"));
    }
    let most = match reader.u8("block size").map_err(invalid)? >> 4 & 7 {
        code @ 4..=7 => 1_usize << (8 + 2 * code), // 64 KiB, 256 KiB, 1 MiB, 4 MiB
        code => return Err(invalid(format_args!("block size {code}"))),
    };
    let content_size = match flags & CONTENT_SIZE {
        0 => None,
        _ => Some(u64::from_le_bytes(reader.array("content size").map_err(invalid)?)),
    };
    reader.skip(1, "header checksum").map_err(invalid)?;
    loop {
        let field = little_u32(reader, "block length")?;
        if field == END_MARK {
            break;
        }
        let length = to_usize(field & !STORED);
        if length > most {
            return Err(invalid(format_args!("a block of {length} bytes in a frame with at most {most}")));
        }
        let block = reader.bytes(length, "block").map_err(invalid)?;
        if flags & BLOCK_CHECKSUM != 0 {
            reader.skip(4, "block checksum").map_err(invalid)?;
        }
        if field & STORED != 0 {
            if out.len().saturating_add(length) > limit {
                return Err(CodecError::TooLarge { limit });
            }
            out.extend_from_slice(block);
        } else {
            let window = if flags & INDEPENDENT == 0 { WINDOW.min(out.len() - start) } else { 0 };
            append_block(block, most, window, limit, out)?;
        }
    }
    if flags & CONTENT_CHECKSUM != 0 {
        reader.skip(4, "content checksum").map_err(invalid)?;
    }
    let produced = (out.len() - start) as u64;
    match content_size {
        Some(claimed) if claimed != produced => {
            Err(invalid(format_args!("the frame claims {claimed} bytes and has {produced}")))
        }
        _ => Ok(()),
    }
}

/// Appends one compressed block of at most `most` plain bytes, which may refer to the last `window` bytes.
fn append_block(block: &[u8], most: usize, window: usize, limit: usize, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let start = out.len();
    let possible = block.len().saturating_mul(MOST_FROM_A_BYTE).saturating_add(MOST_FROM_A_TOKEN).min(most);
    let allowed = limit.saturating_sub(start);
    let room = possible.min(allowed);
    out.resize(start + room, 0);
    let (before, target) = out.split_at_mut_checked(start).unwrap_or_default();
    let dictionary = before.get(start - window..).unwrap_or_default();
    let written = decompress_into_with_dict(block, target, dictionary).map_err(|error| match error {
        lz4_flex::block::DecompressError::OutputTooSmall { .. } if room == allowed => CodecError::TooLarge { limit },
        error => invalid(error),
    })?;
    out.truncate(start + written);
    Ok(())
}

/// What a token itself may yield beyond its extra length bytes: a match of 19 and literals of 15.
const MOST_FROM_A_TOKEN: usize = 64;

fn little_u32(reader: &mut Reader<'_>, field: &'static str) -> Result<u32, CodecError> {
    Ok(u32::from_le_bytes(reader.array(field).map_err(invalid)?))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

    use super::*;

    fn decompressed(bytes: &[u8], limit: usize) -> Result<Vec<u8>, CodecError> {
        let mut out = Vec::new();
        decompress(bytes, limit, &mut out).map(|()| out)
    }

    fn plain() -> Vec<u8> {
        (0..60_000_u32).flat_map(|i| [i as u8, (i >> 3) as u8, 0, (i / 1000) as u8]).collect()
    }

    #[test]
    fn frames_of_every_kind_are_read() {
        let plain = plain();
        for mode in [BlockMode::Independent, BlockMode::Linked] {
            for size in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max1MB, BlockSize::Max4MB] {
                for checks in [false, true] {
                    let info = FrameInfo::new()
                        .block_mode(mode)
                        .block_size(size)
                        .block_checksums(checks)
                        .content_checksum(checks)
                        .content_size(checks.then_some(plain.len() as u64));
                    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
                    encoder.write_all(&plain).expect("writes");
                    let frame = encoder.finish().expect("ends");
                    assert_eq!(decompressed(&frame, plain.len()), Ok(plain.clone()), "{mode:?} {size:?} {checks}");
                    assert_eq!(
                        decompressed(&frame, plain.len() - 1),
                        Err(CodecError::TooLarge { limit: plain.len() - 1 }),
                        "{mode:?} {size:?} {checks}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_strict_reader_accepts_what_is_written() {
        // This one does compute the header checksum.
        for plain in [plain(), vec![], (0..99_999_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()] {
            let mut frame = Vec::new();
            compress(&plain, &mut frame).expect("compresses");
            let mut back = Vec::new();
            FrameDecoder::new(&frame[..]).read_to_end(&mut back).expect("valid");
            assert_eq!(back, plain);
        }
    }

    #[test]
    fn frames_one_after_the_other_are_one_stream_and_skippable_ones_are_left_out() {
        let mut both = Vec::new();
        compress(b"one,", &mut both).expect("compresses");
        both.extend_from_slice(&[0x5e, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 0xaa, 0xbb]);
        compress(b"two", &mut both).expect("compresses");
        assert_eq!(decompressed(&both, 100), Ok(b"one,two".to_vec()));
    }

    #[test]
    fn independent_blocks_may_not_reach_into_the_block_before() {
        let mut frame = [&MAGIC[..], &DESCRIPTOR].concat();
        frame.extend_from_slice(&[8, 0, 0, 0x80]);
        frame.extend_from_slice(b"abcdefgh");
        // No literals, a match of four bytes eight back, then five literals.
        let block = [0x00, 8, 0, 0x50, b'v', b'w', b'x', b'y', b'z'];
        frame.extend_from_slice(&(block.len() as u32).to_le_bytes());
        frame.extend_from_slice(&block);
        frame.extend_from_slice(&END_MARK.to_le_bytes());
        assert!(matches!(decompressed(&frame, 100), Err(CodecError::Invalid(_))));
        frame[4] &= !INDEPENDENT;
        assert_eq!(decompressed(&frame, 100), Ok(b"abcdefghabcdvwxyz".to_vec()));
    }

    #[test]
    fn malformed_frames_are_refused() {
        let frame = |descriptor: &[u8], rest: &[u8]| [&MAGIC[..], descriptor, rest].concat();
        let cases = [
            ("no bytes", vec![]),
            ("not the magic", vec![1, 2, 3, 4]),
            ("version 2", frame(&[0xa0, 0x40, 0], &[0; 4])),
            ("a dictionary", frame(&[0x61, 0x40, 0], &[0; 8])),
            ("block size code 3", frame(&[0x60, 0x30, 0], &[0; 4])),
            ("a block beyond the frame's most", frame(&DESCRIPTOR, &[1, 0, 1, 0])),
            ("a block beyond the bytes", frame(&DESCRIPTOR, &[9, 0, 0, 0, 1])),
            ("a claimed size that is not kept", frame(&[0x68, 0x40], &[[0xff; 8], [0; 8]].concat())),
            ("bytes after the frame", frame(&DESCRIPTOR, &[0, 0, 0, 0, 1])),
        ];
        for (name, bytes) in cases {
            assert!(matches!(decompressed(&bytes, 1000), Err(CodecError::Invalid(_))), "{name}");
        }
    }

    #[test]
    fn a_tiny_block_of_a_frame_with_large_blocks_reserves_little() {
        let mut frame = [&MAGIC[..], &[0x60, 0x70, 0x73]].concat(); // blocks of up to 4 MiB
        frame.extend_from_slice(&[2, 0, 0, 0, 0x10, b'x', 0, 0, 0, 0]);
        let mut out = Vec::new();
        decompress(&frame, usize::MAX, &mut out).expect("valid");
        assert_eq!(out, b"x");
        assert!(out.capacity() < 1024, "{}", out.capacity());
    }
}
