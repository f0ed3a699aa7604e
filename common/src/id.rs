//! Typed ids of agent and manager. Parsed at the edge; inside there are no strings to check again.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not the id it claims to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// A name has characters or a length outside the grammar.
    #[error(
        "a name has 1 to 253 characters of letters, digits, '.', '-' and '_', and starts and ends with a letter or digit"
    )]
    Name,
    /// A uid is not 32 hexadecimal digits.
    #[error("a uid has 32 hexadecimal digits")]
    Uid,
    /// A binary id has the wrong length.
    #[error("a binary id has 16 bytes, not {0}")]
    Length(usize),
}

/// 128 random bits that no two things share. Machines speak of commands and journals by it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uid(pub [u8; 16]);

impl Uid {
    /// Draws a new one from the system's random source.
    ///
    /// # Panics
    /// When the operating system has no random source: nothing that needs identity can work then.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        #[expect(clippy::expect_used, reason = "getrandom does not fail on a running Linux")]
        aws_lc_rs::rand::fill(&mut bytes).expect("the system has a random source");
        Self(bytes)
    }

    /// Reads the 16 bytes of a wire message.
    ///
    /// # Errors
    /// When there are not exactly 16.
    pub fn from_wire(bytes: &[u8]) -> Result<Self, IdError> {
        bytes.try_into().map(Self).map_err(|_| IdError::Length(bytes.len()))
    }

    /// The bytes for a wire message.
    #[must_use]
    pub fn to_wire(self) -> bytes::Bytes {
        bytes::Bytes::copy_from_slice(&self.0)
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Uid {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let digits = text.as_bytes();
        if digits.len() != 32 {
            return Err(IdError::Uid);
        }
        let nibble = |digit: u8| match digit {
            b'0'..=b'9' => Ok(digit - b'0'),
            b'a'..=b'f' => Ok(digit - b'a' + 10),
            _ => Err(IdError::Uid),
        };
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Uid {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Uid {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The name of an agent, manager, operator or cluster: letters, digits, `.`, `-`, `_`, up to 253.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Name(Box<str>);

impl Name {
    /// The text of the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bytes = text.as_bytes();
        let inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let fits = (1..=253).contains(&bytes.len())
            && edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(inner)
            && !text.contains("..");
        if fits { Ok(Self(text.into())) } else { Err(IdError::Name) }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Defines a number with a meaning: no arithmetic between different meanings by accident.
macro_rules! number {
    ($(#[$doc:meta] $name:ident),* $(,)?) => {$(
        #[$doc]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    )*};
}

number! {
    /// What people and URLs call a command: counted up by the store, never used twice.
    CommandId,
    /// What people call a job.
    JobId,
    /// Which session of an agent: the newest wins, older ones are fenced.
    Epoch,
    /// Which bearer of a name: names may be reused after removal, generations never.
    Generation,
    /// Which life of the manager's store: changes when it was restored from an older copy.
    Incarnation,
    /// How far the manager's store has come; grows with every committed change.
    StorePosition,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_grammar_and_nothing_else_passes() {
        for good in ["a", "web1", "Web-1.example_x", &"a".repeat(253)] {
            assert_eq!(good.parse::<Name>().map(|name| name.to_string()), Ok(good.to_owned()));
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "../a",
            "a..b",
            "a\n",
            "\na",
            "a b",
            "ä",
            "-a",
            "a-",
            ".a",
            "a\0",
            "a\u{202e}b",
            &"a".repeat(254),
        ] {
            assert_eq!(bad.parse::<Name>(), Err(IdError::Name), "{bad:?}");
        }
    }

    #[test]
    fn uids_survive_text_and_wire() {
        let uid = Uid::random();
        assert_eq!(uid.to_string().parse(), Ok(uid));
        assert_eq!(Uid::from_wire(&uid.to_wire()), Ok(uid));
        assert_eq!(Uid::from_wire(&[0; 15]), Err(IdError::Length(15)));
        assert_eq!("zz".repeat(16).parse::<Uid>(), Err(IdError::Uid));
        assert_eq!(
            uid.to_string().to_uppercase().replace(|c: char| c.is_ascii_digit(), "F").parse::<Uid>(),
            Err(IdError::Uid)
        );
    }
}
