//! A join token: one line with everything a host needs to become an agent of a cluster.
//!
//! ```text
//! paprikajoin_<id>_<secret>_<pin, hexadecimal>_<addresses, joined by commas, base64url>
//! ```
//! The pin is checked before the secret leaves the host (protocol R-JOIN-2). There is no short form without it.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::config::Secret;
use crate::limits::{JOIN_ID_CHARS, JOIN_SECRET_BYTES, MAX_ADDRESS_BYTES, MAX_JOIN_ADDRESSES, MAX_JOIN_TOKEN_BYTES};
use crate::pin::Pin;

/// What every join token begins with, so that people and scanners know one when they see it.
pub const PREFIX: &str = "paprikajoin_";
/// Random bytes of an id: names a token among the few that a cluster has.
const ID_BYTES: usize = 8;
/// Random bytes of a secret.
const SECRET_BYTES: usize = 32;

/// Where to go, whom to trust there, and what to show.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Where managers listen: `host:port`.
    pub addresses: Vec<String>,
    /// The authority that a manager must show.
    pub pin: Pin,
    /// What people call the token.
    pub id: String,
    /// What proves the right to join.
    pub secret: Secret,
}

/// Why a text is not a join token. Nothing of the text is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinTokenError {
    /// The beginning is missing.
    #[error("a join token begins with {PREFIX}; copy the whole line that `paprika join-token new` printed")]
    Prefix,
    /// The text is too long.
    #[error("a join token has at most {MAX_JOIN_TOKEN_BYTES} bytes")]
    Long,
    /// Something is cut off, or too much.
    #[error("a join token has five parts between underscores, not {0}; copy the whole line")]
    Parts(usize),
    /// The second part.
    #[error("the id of the join token is damaged")]
    Id,
    /// The third part.
    #[error("the secret of the join token is damaged")]
    Secret,
    /// The fourth part.
    #[error("the pin of the join token is damaged")]
    Pin,
    /// The last part.
    #[error("the addresses of the join token are damaged; copy the whole line")]
    Addresses,
}

impl JoinToken {
    /// Makes a token with an id and a secret that nobody can guess.
    ///
    /// # Errors
    /// When there are no addresses, too many, or one that cannot stand in a token.
    pub fn draw(addresses: Vec<String>, pin: Pin) -> Result<Self, JoinTokenError> {
        check_addresses(&addresses)?;
        Ok(Self { addresses, pin, id: random_hex(ID_BYTES), secret: Secret::new(random_hex(SECRET_BYTES)) })
    }

    /// The whole line. It holds the secret: show it once, to whoever asked for it.
    #[must_use]
    pub fn expose(&self) -> String {
        let addresses = URL_SAFE_NO_PAD.encode(self.addresses.join(","));
        format!("{PREFIX}{}_{}_{}_{addresses}", self.id, self.secret.expose(), self.pin)
    }

    /// What a manager keeps of the secret.
    #[must_use]
    pub fn secret_hash(&self) -> [u8; 32] {
        hash_secret(&self.secret)
    }
}

/// What a manager keeps of a secret. Secrets are drawn at random, so that a plain hash tells nothing about them.
#[must_use]
pub fn hash_secret(secret: &Secret) -> [u8; 32] {
    *blake3::hash(secret.expose().as_bytes()).as_bytes()
}

/// Tells whether a text can be the id of a join token.
#[must_use]
pub fn is_id(text: &str) -> bool {
    JOIN_ID_CHARS.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// Tells whether a text can be the secret of a join token.
#[must_use]
pub fn is_secret(text: &str) -> bool {
    JOIN_SECRET_BYTES.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("addresses", &self.addresses)
            .field("pin", &self.pin)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl FromStr for JoinToken {
    type Err = JoinTokenError;

    fn from_str(text: &str) -> Result<Self, JoinTokenError> {
        use JoinTokenError as E;
        // A line from a file or a terminal ends with a newline.
        let text = text.trim_ascii();
        if text.len() > MAX_JOIN_TOKEN_BYTES {
            return Err(E::Long);
        }
        let rest = text.strip_prefix(PREFIX).ok_or(E::Prefix)?;
        // The last part may hold underscores itself.
        let parts: Vec<&str> = rest.splitn(4, '_').collect();
        let [id, secret, pin, addresses] = parts.as_slice() else {
            return Err(E::Parts(parts.len() + 1));
        };
        if !is_id(id) {
            return Err(E::Id);
        }
        if !is_secret(secret) {
            return Err(E::Secret);
        }
        let pin = pin.parse().map_err(|_| E::Pin)?;
        let addresses = URL_SAFE_NO_PAD.decode(addresses).map_err(|_| E::Addresses)?;
        let addresses = String::from_utf8(addresses).map_err(|_| E::Addresses)?;
        let addresses: Vec<String> = addresses.split(',').map(str::to_owned).collect();
        check_addresses(&addresses)?;
        Ok(Self { addresses, pin, id: (*id).to_owned(), secret: Secret::new((*secret).to_owned()) })
    }
}

fn check_addresses(addresses: &[String]) -> Result<(), JoinTokenError> {
    let plausible = |address: &String| {
        (1..=MAX_ADDRESS_BYTES).contains(&address.len())
            && address.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
    };
    if (1..=MAX_JOIN_ADDRESSES).contains(&addresses.len()) && addresses.iter().all(plausible) {
        Ok(())
    } else {
        Err(JoinTokenError::Addresses)
    }
}

fn random_hex(bytes: usize) -> String {
    let mut random = vec![0; bytes];
    #[expect(clippy::expect_used, reason = "getrandom does not fail on a running Linux")]
    aws_lc_rs::rand::fill(&mut random).expect("the system has a random source");
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token() -> Result<JoinToken, JoinTokenError> {
        JoinToken::draw(vec!["m1.example.org:7051".into(), "[2001:db8::1]:7051".into()], Pin::of(b"ca"))
    }

    #[test]
    fn a_token_is_one_line_that_comes_back_whole() -> Result<(), JoinTokenError> {
        let token = token()?;
        let line = token.expose();
        assert_eq!(line.parse::<JoinToken>()?, token);
        assert_eq!(format!(" {line}\n").parse::<JoinToken>()?, token);
        assert!(line.starts_with(PREFIX) && line.bytes().all(|byte| byte.is_ascii_graphic()));
        assert_ne!(token.secret, self::token()?.secret, "drawn anew each time");
        Ok(())
    }

    #[test]
    fn neither_debug_nor_an_error_shows_the_secret() -> Result<(), JoinTokenError> {
        let token = token()?;
        let secret = token.secret.expose().to_owned();
        assert!(!format!("{token:?}").contains(&secret));
        let line = token.expose();
        for cut in 0..line.len() {
            let Err(error) = line[..cut].parse::<JoinToken>() else { continue };
            let said = format!("{error} {error:?}");
            assert!(!said.contains(&secret[..4]), "{said}");
        }
        Ok(())
    }

    #[test]
    fn each_damage_has_its_own_error() -> Result<(), JoinTokenError> {
        use JoinTokenError as E;
        let line = token()?.expose();
        let error = |text: &str| text.parse::<JoinToken>().err();
        assert_eq!(error(""), Some(E::Prefix));
        assert_eq!(error("paprika_x_y"), Some(E::Prefix));
        assert_eq!(error(&line[1..]), Some(E::Prefix));
        let parts: Vec<&str> = line.splitn(5, '_').collect();
        let with = |at: usize, part: &str| {
            let mut parts = parts.clone();
            parts[at] = part;
            error(&parts.join("_"))
        };
        assert_eq!(error(&parts[..4].join("_")), Some(E::Parts(4)));
        assert_eq!(error(&parts[..2].join("_")), Some(E::Parts(2)));
        assert_eq!(with(1, "short"), Some(E::Id));
        assert_eq!(with(1, "UPPER-CASE"), Some(E::Id));
        assert_eq!(with(2, "tooshort"), Some(E::Secret));
        assert_eq!(with(2, &"ä".repeat(20)), Some(E::Secret));
        assert_eq!(with(3, "00"), Some(E::Pin));
        for addresses in ["", "=", "AA==", &URL_SAFE_NO_PAD.encode("a:1,,b:1"), &URL_SAFE_NO_PAD.encode("a b:1")] {
            assert_eq!(with(4, addresses), Some(E::Addresses), "{addresses:?}");
        }
        assert_eq!(with(4, &URL_SAFE_NO_PAD.encode(b"\xff\xfe")), Some(E::Addresses));
        assert_eq!(error(&format!("{PREFIX}{}", "x".repeat(MAX_JOIN_TOKEN_BYTES))), Some(E::Long));
        Ok(())
    }

    #[test]
    fn the_limits_of_a_token_hold_on_both_sides() -> Result<(), JoinTokenError> {
        let addresses = |count: usize, bytes: usize| JoinToken::draw(vec!["a".repeat(bytes); count], Pin::of(b"ca"));
        let largest = addresses(MAX_JOIN_ADDRESSES, MAX_ADDRESS_BYTES)?;
        assert!(largest.expose().len() <= MAX_JOIN_TOKEN_BYTES);
        assert_eq!(largest.expose().parse::<JoinToken>()?, largest);
        assert!(addresses(0, 1).is_err() && addresses(MAX_JOIN_ADDRESSES + 1, 1).is_err());
        assert!(addresses(1, 0).is_err() && addresses(1, MAX_ADDRESS_BYTES + 1).is_err());
        let (shortest, longest) = (*JOIN_ID_CHARS.start(), *JOIN_ID_CHARS.end());
        for (length, fits) in [(shortest - 1, false), (shortest, true), (longest, true), (longest + 1, false)] {
            assert_eq!(is_id(&"a".repeat(length)), fits, "{length}");
        }
        let (shortest, longest) = (*JOIN_SECRET_BYTES.start(), *JOIN_SECRET_BYTES.end());
        for (length, fits) in [(shortest - 1, false), (shortest, true), (longest, true), (longest + 1, false)] {
            assert_eq!(is_secret(&"a".repeat(length)), fits, "{length}");
        }
        assert!(is_id(&largest.id) && is_secret(largest.secret.expose()));
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100_000))]

        #[test]
        fn no_text_makes_the_reader_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..160),
            begun in any::<bool>(),
        ) {
            let rest = String::from_utf8_lossy(&bytes);
            let text = if begun { format!("{PREFIX}{rest}") } else { rest.into_owned() };
            if let Ok(token) = text.parse::<JoinToken>() {
                prop_assert_eq!(token.expose().parse::<JoinToken>(), Ok(token));
            }
            prop_assert!(text.parse::<Pin>().is_err() || text.len() >= 64);
        }

        #[test]
        fn no_damage_of_a_token_makes_the_reader_panic(at in any::<proptest::sample::Index>(), byte in 0_u8..128) {
            let mut line = token().map(|token| token.expose()).unwrap_or_default().into_bytes();
            let at = at.index(line.len());
            if let Some(place) = line.get_mut(at) {
                *place = byte;
            }
            let line = String::from_utf8_lossy(&line);
            if let Ok(token) = line.parse::<JoinToken>() {
                prop_assert_eq!(token.expose().parse::<JoinToken>(), Ok(token));
            }
        }
    }
}
