//! What of a request is secret: open on its way in, sealed from then on.
//!
//! The store holds no key. It writes only what is sealed: to serialise the open form is an error, so that a caller who
//! forgot to seal gets nothing accepted instead of a secret in a database.

use std::collections::BTreeMap;

use common::config::{Secret, SecretBytes};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The secret part of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Secrets {
    /// Nothing is secret.
    #[default]
    None,
    /// As the caller gave it.
    Open(OpenSecrets),
    /// As it is kept.
    Sealed(SealedSecrets),
}

/// Secrets as the caller gave them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenSecrets {
    pub env: BTreeMap<String, Secret>,
    pub stdin: Option<SecretBytes>,
}

/// Secrets as they are kept: what is secret by name, and one sealed text of all values.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedSecrets {
    /// Names of variables.
    pub env: Vec<String>,
    pub stdin: bool,
    /// Base64; empty: the values are known to nobody here any more.
    pub sealed: String,
}

impl Secrets {
    /// Tells whether nothing is secret.
    #[must_use]
    pub fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Names what is secret: `env.NAME`, `stdin`.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let (env, stdin): (Vec<&String>, bool) = match self {
            Self::None => return Vec::new(),
            Self::Open(open) => (open.env.keys().collect(), open.stdin.is_some()),
            Self::Sealed(sealed) => (sealed.env.iter().collect(), sealed.stdin),
        };
        env.into_iter().map(|name| format!("env.{name}")).chain(stdin.then(|| "stdin".to_owned())).collect()
    }
}

impl Serialize for Secrets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_none(),
            Self::Open(_) => Err(S::Error::custom("secrets have to be sealed before they are kept")),
            Self::Sealed(sealed) => sealed.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Secrets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::<SealedSecrets>::deserialize(deserializer)?.map_or(Self::None, Self::Sealed))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::super::Request;
    use super::*;

    fn open() -> Secrets {
        Secrets::Open(OpenSecrets {
            env: [("TOKEN".to_owned(), Secret::new("hunter2".to_owned()))].into(),
            stdin: Some(SecretBytes::new(b"hunter2".to_vec())),
        })
    }

    #[test]
    fn what_is_not_sealed_cannot_be_written() {
        let request = Request { secrets: open(), ..Request::default() };
        let error = serde_json::to_string(&request).unwrap_err().to_string();
        assert!(error.contains("sealed") && !error.contains("hunter2"), "{error}");
        assert!(!format!("{request:?}").contains("hunter2"));
    }

    #[test]
    fn sealed_ones_come_back_and_none_leaves_no_trace() {
        let sealed = SealedSecrets { env: vec!["A".into(), "B".into()], stdin: true, sealed: "AQID".into() };
        let request = Request { secrets: Secrets::Sealed(sealed), ..Request::default() };
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
        assert_eq!(request.secrets.names(), ["env.A", "env.B", "stdin"]);
        let plain = serde_json::to_string(&Request::default()).unwrap();
        assert!(!plain.contains("secrets"), "rows without secrets are as they were: {plain}");
        assert_eq!(open().names(), ["env.TOKEN", "stdin"]);
        assert!(Secrets::None.names().is_empty() && Secrets::None.is_none());
    }
}
