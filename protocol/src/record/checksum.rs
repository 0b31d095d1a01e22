//! CRC-32C of two adjoining pieces from the checksums of each.
//!
//! Stamping a batch changes 14 bytes in front of a payload that stays; with this the payload is summed once.
//! Method: a CRC is a polynomial over GF(2) modulo the Castagnoli polynomial, and appending n bytes multiplies by x^(8n).

/// Castagnoli, bits reversed: bit 31 is x^0.
const POLYNOMIAL: u32 = 0x82f6_3b78;
const ONE: u32 = 1 << 31;

/// x^(2^k) for k = 0..31. The order of x is 2^31 - 1 (the polynomial is x + 1 times a primitive one of degree 31), so
/// x^(2^31) = x and the table goes round.
// Computed at compile time, where an index beyond the array does not compile.
#[allow(clippy::indexing_slicing)]
const POWERS: [u32; 31] = {
    let mut powers = [0; 31];
    let mut power = ONE >> 1;
    let mut k = 0;
    while k < powers.len() {
        powers[k] = power;
        power = multiply(power, power);
        k += 1;
    }
    powers
};

/// What appending some number of bytes does to a checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shift(u32);

impl Shift {
    /// For `len` appended bytes.
    pub(super) fn of(len: usize) -> Self {
        let mut bits = (len as u64) * 8;
        let mut shift = ONE;
        for power in POWERS.iter().cycle() {
            if bits == 0 {
                break;
            }
            if bits & 1 == 1 {
                shift = multiply(shift, *power);
            }
            bits >>= 1;
        }
        Self(shift)
    }

    /// The checksum of `first` followed by `second`, whose length this shift is for.
    pub(super) fn join(self, first: u32, second: u32) -> u32 {
        multiply(self.0, first) ^ second
    }
}

/// a * b modulo the polynomial.
const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = ONE;
    while bit != 0 {
        if a & bit != 0 {
            product ^= b;
        }
        b = if b & 1 == 1 { (b >> 1) ^ POLYNOMIAL } else { b >> 1 };
        bit >>= 1;
    }
    product
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn joined_checksums_are_those_of_the_joined_bytes(
            first in proptest::collection::vec(any::<u8>(), 0..80),
            second in proptest::collection::vec(any::<u8>(), 0..5000),
        ) {
            let joined = Shift::of(second.len()).join(crc32c::crc32c(&first), crc32c::crc32c(&second));
            prop_assert_eq!(joined, crc32c::crc32c(&[first, second].concat()));
        }
    }

    #[test]
    fn long_payloads_join_as_well() {
        for len in [1 << 16, (1 << 20) + 3, 10_000_001] {
            let second: Vec<u8> = (0..len).map(|i| (i * 31) as u8).collect();
            let joined = Shift::of(len).join(crc32c::crc32c(b"head"), crc32c::crc32c(&second));
            assert_eq!(joined, crc32c::crc32c_append(crc32c::crc32c(b"head"), &second));
        }
    }
}
