//! gzip (RFC 1952), one or more members.

use std::{cell::RefCell, io::Read};

use flate2::{Compress, Compression as Level, FlushCompress, Status, bufread::MultiGzDecoder};

use super::{CodecError, invalid};

const DEFAULT_LEVEL: i32 = 6;
const WINDOW_BITS: u8 = 15;

thread_local! {
    /// A compressor holds some 300 KiB, so it is used again; with the level that it has.
    static COMPRESSOR: RefCell<Option<(u32, Compress)>> = const { RefCell::new(None) };
}

pub(super) fn compress(plain: &[u8], level: Option<i32>, out: &mut Vec<u8>) -> Result<(), CodecError> {
    // Kafka's gzip levels are 1 to 9, and -1 for the default.
    let level = level.filter(|level| *level != -1).unwrap_or(DEFAULT_LEVEL).clamp(1, 9).unsigned_abs();
    COMPRESSOR.with_borrow_mut(|kept| {
        let compressor = match kept {
            Some((kept_level, compressor)) if *kept_level == level => {
                compressor.reset();
                compressor
            }
            _ => &mut kept.insert((level, Compress::new_gzip(Level::new(level), WINDOW_BITS))).1,
        };
        let mut rest = plain;
        loop {
            // Incompressible input grows by a few bytes a block; the loop makes room again where that is not enough.
            out.reserve(rest.len() / 2 + 128);
            let before = compressor.total_in();
            let status = compressor.compress_vec(rest, out, FlushCompress::Finish).map_err(invalid)?;
            let taken = usize::try_from(compressor.total_in() - before).unwrap_or(usize::MAX);
            rest = rest.get(taken..).unwrap_or_default();
            if status == Status::StreamEnd {
                return Ok(());
            }
        }
    })
}

pub(super) fn decompress(compressed: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), CodecError> {
    if compressed.is_empty() {
        return Err(invalid("no member"));
    }
    // One byte more than allowed tells "exactly the limit" from "more".
    let mut bounded = MultiGzDecoder::new(compressed).take((limit as u64).saturating_add(1));
    bounded.read_to_end(out).map_err(invalid)?;
    if out.len() > limit { Err(CodecError::TooLarge { limit }) } else { Ok(()) }
}
