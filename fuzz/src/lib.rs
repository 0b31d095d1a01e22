//! What the targets share: a memory ceiling, and every API by number.
//!
//! A target panics where bytes of a stranger make the client panic, take more memory than they are worth, or come back as
//! something else after they were written again.

pub mod api;
pub mod peer;

use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What one message may cost apart from its length: buffers that are kept, and the text of an error.
const FIXED_BYTES: usize = 512 * 1024;

/// Runs `decode`, which may take so many times the bytes of its input at once.
///
/// # Panics
/// When it takes more.
pub fn bounded<T>(input: &[u8], times: usize, decode: impl FnOnce() -> T) -> T {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let result = decode();
    let taken = MEMORY.peak_usage().saturating_sub(before);
    let ceiling = FIXED_BYTES + times * input.len();
    assert!(taken <= ceiling, "{taken} bytes taken for {} bytes of input, the ceiling is {ceiling}", input.len());
    result
}

/// Takes `N` bytes off the front, by which an input chooses what is done with the rest.
pub fn choices<const N: usize>(input: &[u8]) -> Option<([u8; N], &[u8])> {
    input.split_first_chunk::<N>().map(|(choices, rest)| (*choices, rest))
}
