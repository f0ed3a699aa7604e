//! Base64 (RFC 4648, with padding) for bytes inside JSON. Two functions; a crate would be larger than they are.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// Marks bytes that are no digit.
const NONE: u8 = 0xff;
/// The value of every byte as a digit.
const VALUES: [u8; 256] = values();

/// A text is not base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not base64 at byte {at}")]
pub struct NotBase64 {
    /// Where the first wrong byte is.
    pub at: usize,
}

/// Writes `bytes` behind `out`.
pub fn encode_into(bytes: &[u8], out: &mut String) {
    out.reserve(bytes.len().div_ceil(3) * 4);
    let digit = |value: u32| char::from(ALPHABET[(value & 63) as usize]);
    let mut threes = bytes.chunks_exact(3);
    for three in &mut threes {
        let value = u32::from(three[0]) << 16 | u32::from(three[1]) << 8 | u32::from(three[2]);
        for shift in [18, 12, 6, 0] {
            out.push(digit(value >> shift));
        }
    }
    match *threes.remainder() {
        [a] => {
            let value = u32::from(a) << 16;
            out.extend([digit(value >> 18), digit(value >> 12), '=', '=']);
        }
        [a, b] => {
            let value = u32::from(a) << 16 | u32::from(b) << 8;
            out.extend([digit(value >> 18), digit(value >> 12), digit(value >> 6), '=']);
        }
        _ => {}
    }
}

/// Writes `bytes` as text.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    let mut out = String::new();
    encode_into(bytes, &mut out);
    out
}

/// Reads text back.
///
/// # Errors
/// When it has a character outside the alphabet, a wrong length or bits behind the end.
pub fn decode(text: &str) -> Result<Vec<u8>, NotBase64> {
    let digits = text.as_bytes();
    let wrong = |at| NotBase64 { at };
    if !digits.len().is_multiple_of(4) {
        return Err(wrong(digits.len()));
    }
    let padding = digits.iter().rev().take(2).take_while(|digit| **digit == b'=').count();
    let body = &digits[..digits.len() - padding];
    let mut out = Vec::with_capacity(digits.len() / 4 * 3);
    for (index, four) in body.chunks(4).enumerate() {
        let mut value = 0_u32;
        for (place, digit) in four.iter().enumerate() {
            let bits = VALUES[usize::from(*digit)];
            if bits == NONE {
                return Err(wrong(index * 4 + place));
            }
            value = value << 6 | u32::from(bits);
        }
        let missing = 4 - four.len();
        let value = value << (6 * missing);
        let kept = 3 - missing;
        let [_, bytes @ ..] = value.to_be_bytes();
        if bytes[kept..].iter().any(|rest| *rest != 0) {
            return Err(wrong(index * 4 + four.len() - 1));
        }
        out.extend_from_slice(&bytes[..kept]);
    }
    Ok(out)
}

const fn values() -> [u8; 256] {
    let mut values = [NONE; 256];
    let mut index = 0;
    while index < ALPHABET.len() {
        values[ALPHABET[index] as usize] = index as u8;
        index += 1;
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_samples_of_the_rfc_hold() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Ok(bytes.as_bytes()));
        }
    }

    #[test]
    fn every_byte_and_length_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        for end in 0..all.len() {
            assert_eq!(decode(&encode(&all[end..])).as_deref(), Ok(&all[end..]));
        }
    }

    #[test]
    fn what_is_not_base64_is_refused_with_its_place() {
        for (text, at) in
            [("Zg=", 3), ("Z===", 1), ("Zg==Zg==", 2), ("Zm9*", 3), ("Zh==", 1), ("====", 0), ("Zm 9", 2), ("ä==", 0)]
        {
            assert_eq!(decode(text).map_err(|error| error.at), Err(at), "{text}");
        }
    }
}
