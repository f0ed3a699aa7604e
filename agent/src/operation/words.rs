//! Reads the JSON object of an operation's arguments: known keys once each, values with a type, errors with the path.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::Refused;

/// The keys and values that were given; `null` counts as not given.
pub(super) struct Words(Vec<(String, Value)>);

impl Words {
    /// Reads an object that has no other keys than the known ones.
    pub(super) fn read(args: &[u8], known: &[&'static str]) -> Result<Self, Refused> {
        let Self(mut given) =
            serde_json::from_slice(args).map_err(|error| invalid(format!("args: not an object of JSON: {error}")))?;
        if let Some((key, _)) = given.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            let mut text = format!("args: there is no `{}`", common::escape::text(key));
            match common::suggest::nearest(key, known.iter().copied()) {
                Some(near) => text.push_str(&format!("; did you mean `{near}`?")),
                None if known.is_empty() => text.push_str("; there are no arguments"),
                None => text.push_str(&format!("; known are {}", known.join(", "))),
            }
            return Err(invalid(text));
        }
        given.retain(|(_, value)| !value.is_null());
        Ok(Self(given))
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// A text that is not empty and holds no NUL.
    pub(super) fn text(&self, key: &str) -> Result<Option<&str>, Refused> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let Some(text) = value.as_str() else { return Err(wrong(key, "must be a text")) };
        plain(key, text).map(Some)
    }

    /// A list of texts without NUL.
    pub(super) fn list(&self, key: &str) -> Result<Option<Vec<&str>>, Refused> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let Some(items) = value.as_array() else { return Err(wrong(key, "must be a list of texts")) };
        let mut words = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let Some(word) = item.as_str() else { return Err(wrong(&format!("{key}[{index}]"), "must be a text")) };
            if word.contains('\0') {
                return Err(wrong(&format!("{key}[{index}]"), "must not hold a NUL"));
            }
            words.push(word);
        }
        Ok(Some(words))
    }

    /// A program and its arguments.
    pub(super) fn argv(&self, key: &str) -> Result<Option<Vec<&str>>, Refused> {
        match self.list(key)? {
            Some(words) if words.first().is_none_or(|word| word.is_empty()) => {
                Err(wrong(key, "must begin with the name of a program"))
            }
            words => Ok(words),
        }
    }

    /// One text, or a program and its arguments.
    pub(super) fn line_or_argv(&self, key: &str) -> Result<bool, Refused> {
        match self.get(key) {
            None => Ok(false),
            Some(Value::String(_)) => self.text(key).map(|_| true),
            Some(Value::Array(_)) => self.argv(key).map(|_| true),
            Some(_) => Err(wrong(key, "must be a text, or a list of a program and its arguments")),
        }
    }

    /// A path from the root.
    pub(super) fn path(&self, key: &str) -> Result<(), Refused> {
        match self.text(key)? {
            Some(path) if !path.starts_with('/') => Err(wrong(key, "must be an absolute path")),
            _ => Ok(()),
        }
    }
}

fn plain<'a>(key: &str, text: &'a str) -> Result<&'a str, Refused> {
    if text.is_empty() {
        return Err(wrong(key, "must not be empty"));
    }
    if text.contains('\0') { Err(wrong(key, "must not hold a NUL")) } else { Ok(text) }
}

pub(super) fn invalid(text: String) -> Refused {
    Refused::new("invalid_args", text)
}

fn wrong(path: &str, what: &str) -> Refused {
    invalid(format!("args.{path}: {what}"))
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Words;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            // By hand: a map of the library would keep the last of two equal keys, and the shim refuses them.
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Words, A::Error> {
                let mut given: Vec<(String, Value)> = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, Value>()? {
                    if given.iter().any(|(name, _)| *name == key) {
                        let key = common::escape::text(&key);
                        return Err(serde::de::Error::custom(format_args!("`{key}` stands there twice")));
                    }
                    given.push((key, value));
                }
                Ok(Words(given))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}
