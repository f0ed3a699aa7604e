//! A value that must never be seen: it has no Display, no Serialize, and its Debug hides it.

use std::fmt;

use serde::Deserialize;

/// Text that is never printed. The memory is overwritten when it is dropped, as far as the compiler lets us.
///
/// What would show it does not compile: displaying it,
/// ```compile_fail,E0277
/// format!("{}", common::config::Secret::new(String::new()));
/// ```
/// serialising it,
/// ```compile_fail,E0277
/// serde_json::to_string(&common::config::Secret::new(String::new()));
/// ```
/// and taking it for text by accident.
/// ```compile_fail,E0308
/// let shown: &str = &common::config::Secret::new(String::new());
/// ```
/// There is one way, which is easy to search for:
/// ```
/// assert_eq!(common::config::Secret::new("x".to_owned()).expose(), "x");
/// ```
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// Shows the value to the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.0).into_bytes();
        bytes.fill(0);
        std::hint::black_box(&bytes);
    }
}

/// Bytes that are never printed, otherwise the same.
///
/// ```compile_fail,E0277
/// format!("{}", common::config::SecretBytes::new(Vec::new()));
/// ```
/// ```compile_fail,E0277
/// serde_json::to_string(&common::config::SecretBytes::new(Vec::new()));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct SecretBytes(Vec<u8>);

impl SecretBytes {
    /// Wraps a value.
    #[must_use]
    pub fn new(value: Vec<u8>) -> Self {
        Self(value)
    }

    /// Shows the value to the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Adds a byte.
    pub fn push(&mut self, byte: u8) {
        self.0.push(byte);
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl Drop for SecretBytes {
    fn drop(&mut self) {
        self.0.fill(0);
        std::hint::black_box(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show_itself() {
        let secret = Secret::new("hunter2".into());
        assert_eq!(format!("{secret:?}"), "(secret)");
        assert_eq!(secret.expose(), "hunter2");
        let bytes = SecretBytes::new(b"hunter2".to_vec());
        assert_eq!((format!("{bytes:?}").as_str(), bytes.expose()), ("(secret)", &b"hunter2"[..]));
    }
}
