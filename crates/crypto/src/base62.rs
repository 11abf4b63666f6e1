//! Base62 encodes numbers as letters and digits. A double click selects the whole encoded text, and the text
//! needs no escaping in a URL.

/// Encodes the big-endian number in `bytes` as exactly `N` base62 characters, padded with `0` on the left.
///
/// `N` must be large enough for the number: 43 for 32 bytes, 6 for 4 bytes. Otherwise the high digits are
/// lost.
pub(crate) fn encode<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut digits = [0u8; N];
    for byte in bytes {
        let mut carry = u32::from(*byte);
        for digit in digits.iter_mut().rev() {
            carry += u32::from(*digit) * 256;
            *digit = (carry % 62) as u8;
            carry /= 62;
        }
        debug_assert_eq!(carry, 0, "the number does not fit into {N} characters");
    }
    digits.map(character)
}

pub(crate) fn is_character(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

fn character(digit: u8) -> u8 {
    match digit {
        0..=9 => b'0' + digit,
        10..=35 => b'A' + (digit - 10),
        _ => b'a' + (digit - 36),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_and_the_largest_number_fit() {
        assert_eq!(encode::<43>(&[0; 32]), [b'0'; 43]);
        // The expected values for 2^32 - 1 and 2^256 - 1 were computed independently.
        assert_eq!(&encode::<6>(&[0xff; 4]), b"4gfFC3");
        assert_eq!(&encode::<43>(&[0xff; 32]), LARGEST_32.as_bytes());
    }

    const LARGEST_32: &str = "yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp1";

    #[test]
    fn digits_carry_over() {
        assert_eq!(&encode::<3>(&[61]), b"00z");
        assert_eq!(&encode::<3>(&[62]), b"010");
        assert_eq!(&encode::<3>(&[1, 0]), b"048");
    }
}
