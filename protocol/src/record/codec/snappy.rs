//! Snappy as Kafka's Java client frames it (xerial's stream: a magic, two versions, then blocks behind their lengths), and
//! raw, as some other clients write it.

use bytes::{BufMut, Bytes};

use super::CodecError;
use crate::wire::Reader;

const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
/// What Java's stream writes per block.
const BLOCK: usize = 32 * 1024;
/// No snappy element produces more than 64 bytes from 3: a header that claims more is a lie.
const MOST_RATIO: usize = 22;

pub(super) fn compress(input: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
    out.extend_from_slice(&MAGIC);
    out.put_i32(1);
    out.put_i32(1);
    let mut encoder = snap::raw::Encoder::new();
    for block in input.chunks(BLOCK) {
        let packed = encoder.compress_vec(block).map_err(CodecError::invalid)?;
        out.put_i32(i32::try_from(packed.len()).map_err(CodecError::invalid)?);
        out.extend_from_slice(&packed);
    }
    Ok(())
}

pub(super) fn decompress(input: &[u8], limit: usize) -> Result<Bytes, CodecError> {
    let mut out = Vec::new();
    if !input.starts_with(&MAGIC) {
        unpack(input, limit, &mut out)?;
        return Ok(out.into());
    }
    let mut reader = Reader::new(input);
    reader.bytes(MAGIC.len() + 8, "snappy stream header").map_err(CodecError::invalid)?;
    while !reader.is_empty() {
        let length = reader.i32("snappy block length").map_err(CodecError::invalid)?;
        let length = usize::try_from(length).map_err(CodecError::invalid)?;
        let block = reader.bytes(length, "snappy block").map_err(CodecError::invalid)?;
        unpack(block, limit, &mut out)?;
    }
    Ok(out.into())
}

fn unpack(block: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let claimed = snap::raw::decompress_len(block).map_err(CodecError::invalid)?;
    if out.len().saturating_add(claimed) > limit {
        return Err(CodecError::TooLarge { limit });
    }
    if claimed > block.len().saturating_mul(MOST_RATIO) {
        return Err(CodecError::Invalid(format!("{} bytes claim to unpack to {claimed}", block.len())));
    }
    let start = out.len();
    out.resize(start + claimed, 0);
    let Some(room) = out.get_mut(start..) else { return Ok(()) };
    let written = snap::raw::Decoder::new().decompress(block, room).map_err(CodecError::invalid)?;
    out.truncate(start + written);
    Ok(())
}
