//! Variable Byte Integers (MQTT 5.0 §1.5.5): seven bits a byte, least significant first.

use super::error::DecodeError;

/// Largest value that four bytes can carry.
pub const VARINT_MAX: u32 = 268_435_455;

/// Reads the integer at the beginning of `input`: its value and how many bytes it takes, 1 to 4.
///
/// `Ok(None)` means «not all of it has arrived».
///
/// # Errors
/// [`DecodeError::MalformedLength`] if the fourth byte still has its continuation bit set, or if fewer bytes would have
/// done [MQTT-1.5.5-1].
pub fn read_varint(input: &[u8]) -> Result<Option<(u32, usize)>, DecodeError> {
    let mut value = 0;
    for (index, byte) in input.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            if *byte == 0 && index > 0 {
                return Err(DecodeError::MalformedLength);
            }
            return Ok(Some((value, index + 1)));
        }
    }
    if input.len() >= 4 {
        return Err(DecodeError::MalformedLength);
    }
    Ok(None)
}

/// How many bytes `value` takes, 1 to 4.
pub const fn varint_len(value: u32) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x001F_FFFF => 3,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_of_each_length_are_read() {
        let cases: [(&[u8], u32); 8] = [
            (&[0x00], 0),
            (&[0x7F], 127),
            (&[0x80, 0x01], 128),
            (&[0xFF, 0x7F], 16_383),
            (&[0x80, 0x80, 0x01], 16_384),
            (&[0xFF, 0xFF, 0x7F], 2_097_151),
            (&[0x80, 0x80, 0x80, 0x01], 2_097_152),
            (&[0xFF, 0xFF, 0xFF, 0x7F], VARINT_MAX),
        ];
        for (bytes, value) in cases {
            assert_eq!(read_varint(bytes), Ok(Some((value, bytes.len()))));
            assert_eq!(varint_len(value), bytes.len());
            for cut in 0..bytes.len() {
                assert_eq!(read_varint(&bytes[..cut]), Ok(None));
            }
        }
    }

    #[test]
    fn longer_than_needed_is_malformed() {
        for bytes in [&[0x80, 0x00][..], &[0xFF, 0x00], &[0x80, 0x80, 0x80, 0x00]] {
            assert_eq!(read_varint(bytes), Err(DecodeError::MalformedLength));
        }
    }

    #[test]
    fn a_fifth_byte_is_malformed() {
        let announced = [0x80, 0x80, 0x80, 0x80];
        assert_eq!(read_varint(&announced), Err(DecodeError::MalformedLength));
    }
}
