//! The pin of an authority: what a host knows of a cluster before it trusts anything else of it.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};

/// Bytes of a SHA-256.
const BYTES: usize = 32;

/// SHA-256 over the DER form of an authority's certificate.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin(pub [u8; BYTES]);

/// A text is not a pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a pin has 64 hexadecimal digits: the SHA-256 of the authority's certificate")]
pub struct PinError;

impl Pin {
    /// The pin of a certificate.
    #[must_use]
    pub fn of(certificate_der: &[u8]) -> Self {
        Self(sha256(certificate_der))
    }
}

/// SHA-256 of some bytes: pins and the hashes that keys are known by.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; BYTES] {
    let mut hash = [0; BYTES];
    // The lengths are equal by the definition of SHA-256; zip needs no proof of it.
    for (place, byte) in hash.iter_mut().zip(digest(&SHA256, bytes).as_ref()) {
        *place = *byte;
    }
    hash
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Pin {
    type Err = PinError;

    /// Reads hexadecimal digits, also in the form `AA:BB:…` in which other programs print fingerprints.
    fn from_str(text: &str) -> Result<Self, PinError> {
        let digits = text.bytes().filter(|byte| *byte != b':').collect::<Vec<_>>();
        let colons = text.len() - digits.len();
        if digits.len() != 2 * BYTES || (colons != 0 && !colons_stand_between_bytes(text)) {
            return Err(PinError);
        }
        let nibble = |digit: u8| (digit as char).to_digit(16).and_then(|value| u8::try_from(value).ok());
        let mut hash = [0; BYTES];
        for (place, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            let [high, low] = pair else { return Err(PinError) };
            *place = nibble(*high).ok_or(PinError)? << 4 | nibble(*low).ok_or(PinError)?;
        }
        Ok(Self(hash))
    }
}

fn colons_stand_between_bytes(text: &str) -> bool {
    text.len() == 3 * BYTES - 1 && text.bytes().enumerate().all(|(at, byte)| (at % 3 == 2) == (byte == b':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_read_as_it_is_written_and_as_other_programs_write_it() {
        let pin = Pin::of(b"abc");
        assert_eq!(pin.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(pin.to_string().parse(), Ok(pin));
        let upper = pin.to_string().to_uppercase();
        let pairs: Vec<_> = upper.as_bytes().chunks(2).map(String::from_utf8_lossy).collect();
        assert_eq!(pairs.join(":").parse(), Ok(pin));
    }

    #[test]
    fn what_is_no_pin_is_refused() {
        let good = Pin::of(b"x").to_string();
        let odd = format!("{}:", good);
        let shifted = format!(":{good}");
        let doubled = format!("{}::{}", &good[..2], &good[2..]);
        let (longer, letter, wide) = (format!("{good}0"), good.replacen(|_: char| true, "g", 1), "ä".repeat(32));
        for bad in ["", "0", &good[1..], &longer, &letter, &odd, &shifted, &doubled, &wide, &format!(" {good}")] {
            assert_eq!(bad.parse::<Pin>(), Err(PinError), "{bad:?}");
        }
    }
}
