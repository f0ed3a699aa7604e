//! A text that may be a secret: `"text"`, or `{"secret": "text"}`.
//!
//! Errors about one never repeat what was written there: it may be a secret that was only written wrongly.

use std::fmt;

use common::config::Secret;
use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What is shown in the place of a secret.
pub const SHOWN: &str = "(secret)";

/// The one key of the object that stands for a secret.
const KEY: &str = "secret";
/// How a value is written.
const WANTED: &str = r#"a text, or {"secret": "text"}"#;

/// A text, or one that nobody but the command may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextOrSecret {
    /// Kept and sent as it is.
    Text(String),
    /// Kept sealed, shown to nobody.
    Secret(Secret),
}

impl TextOrSecret {
    /// Makes a secret of a text.
    #[must_use]
    pub fn secret(text: String) -> Self {
        Self::Secret(Secret::new(text))
    }

    /// Tells whether it is a secret.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        matches!(self, Self::Secret(_))
    }
}

impl From<String> for TextOrSecret {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for TextOrSecret {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl Serialize for TextOrSecret {
    /// Writes it for the manager, which has to have the value. The one place where a secret leaves its type as text.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Secret(secret) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry(KEY, secret.expose())?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for TextOrSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Either)
    }
}

/// A key or a text, of which no error repeats anything.
struct Quiet(Secret);

impl<'de> Deserialize<'de> for Quiet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_any(Either)? {
            TextOrSecret::Text(text) => Ok(Self(Secret::new(text))),
            TextOrSecret::Secret(_) => Err(wrong()),
        }
    }
}

struct Either;

impl<'de> Visitor<'de> for Either {
    type Value = TextOrSecret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(WANTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(TextOrSecret::Text(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Self::Value, E> {
        Ok(TextOrSecret::Text(text))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        // A key that is not ours may be a secret that was written on the wrong side of a colon.
        while let Some(Quiet(key)) = map.next_key()? {
            if key.expose() != KEY || found.is_some() {
                return Err(wrong());
            }
            let Quiet(secret) = map.next_value()?;
            found = Some(secret);
        }
        found.map(TextOrSecret::Secret).ok_or_else(wrong)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Err(wrong())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Err(wrong())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Err(wrong())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Err(wrong())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Err(wrong())
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Err(wrong())
    }
}

fn wrong<E: Error>() -> E {
    E::custom(format_args!("expected {WANTED}"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_text_and_a_secret_come_back_as_they_went() {
        for (text, value) in [
            (r#""plain""#, TextOrSecret::from("plain")),
            (r#"{"secret":"hunter2"}"#, TextOrSecret::secret("hunter2".to_owned())),
            (r#"{"secret":""}"#, TextOrSecret::secret(String::new())),
        ] {
            let read: TextOrSecret = serde_json::from_str(text).unwrap();
            assert_eq!(read, value);
            assert_eq!(serde_json::to_string(&read).unwrap(), text);
        }
        // Escapes make serde hand over an owned text.
        let read: TextOrSecret = serde_json::from_str(r#"{"secret":"a\nb"}"#).unwrap();
        assert_eq!(read, TextOrSecret::secret("a\nb".to_owned()));
    }

    #[test]
    fn what_is_written_wrongly_is_refused_without_being_repeated() {
        for text in [
            r#"{"secret":4711}"#,
            r#"{"secret":-4711}"#,
            r#"{"secret":4711.5}"#,
            r#"{"secret":true}"#,
            r#"{"secret":null}"#,
            r#"{"secret":["hunter2"]}"#,
            r#"{"secret":{"secret":"hunter2"}}"#,
            r#"{"secret":{"hunter2":"secret"}}"#,
            r#"{"hunter2":"secret"}"#,
            r#"{"secret":"hunter2","hunter2":1}"#,
            r#"{"secret":"hunter2","secret":"hunter2"}"#,
            r#"{}"#,
            r#"["hunter2"]"#,
            "4711",
            "true",
            "null",
        ] {
            let error = serde_json::from_str::<TextOrSecret>(text).unwrap_err().to_string();
            assert!(error.starts_with(r#"expected a text, or {"secret": "text"}"#), "{text}: {error}");
            assert!(!error.contains("hunter2") && !error.contains("4711"), "{text}: {error}");
        }
    }

    #[test]
    fn a_secret_that_is_printed_shows_nothing() {
        let shown = format!("{:?}", TextOrSecret::secret("hunter2".to_owned()));
        assert_eq!(shown, "Secret((secret))");
    }
}
