//! A single value as it was written, and what the core schema of YAML 1.2 takes it for.
//!
//! The text is kept: a field that wants a mode reads `0755` as its writer meant it, not as the number 755.

use std::sync::Arc;

/// A single value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scalar {
    text: Arc<str>,
    quoted: bool,
}

/// What a value is when nobody asks for more.
#[derive(Debug, Clone, PartialEq)]
pub enum Plain<'a> {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`; never `yes` or `on`.
    Bool(bool),
    /// A whole number: decimal, `0o` or `0x`.
    Int(i64),
    /// A whole number beyond that, or a number with a point or exponent.
    Float(f64),
    /// Everything else, and everything in quotes.
    Text(&'a str),
}

impl Scalar {
    /// A value as written; `quoted` also for block scalars.
    #[must_use]
    pub fn new(text: &str, quoted: bool) -> Self {
        Self { text: text.into(), quoted }
    }

    /// Its text, whatever it means.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its writer said that it is text.
    #[must_use]
    pub fn is_quoted(&self) -> bool {
        self.quoted
    }

    /// What it means.
    #[must_use]
    pub fn plain(&self) -> Plain<'_> {
        let text = self.text();
        if self.quoted {
            return Plain::Text(text);
        }
        match text {
            "" | "~" | "null" | "Null" | "NULL" => Plain::Null,
            "true" | "True" | "TRUE" => Plain::Bool(true),
            "false" | "False" | "FALSE" => Plain::Bool(false),
            ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Plain::Float(f64::INFINITY),
            "-.inf" | "-.Inf" | "-.INF" => Plain::Float(f64::NEG_INFINITY),
            ".nan" | ".NaN" | ".NAN" => Plain::Float(f64::NAN),
            _ => number(text).unwrap_or(Plain::Text(text)),
        }
    }
}

fn number(text: &str) -> Option<Plain<'static>> {
    for (prefix, radix) in [("0o", 8), ("0x", 16)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            let is_number = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
            return is_number.then(|| i64::from_str_radix(digits, radix).ok()).flatten().map(Plain::Int);
        }
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !unsigned.is_empty() && unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return match text.parse() {
            Ok(number) => Some(Plain::Int(number)),
            Err(_) => text.parse().ok().map(Plain::Float),
        };
    }
    is_float(unsigned).then(|| text.parse().ok()).flatten().map(Plain::Float)
}

/// `[0-9]* . [0-9]*` with a digit somewhere, and an exponent or none.
fn is_float(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent_fits = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    digits(whole) && digits(part) && !(whole.is_empty() && part.is_empty()) && exponent_fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_core_schema_decides_and_nothing_older() {
        let table: [(&str, Plain<'_>); 26] = [
            ("", Plain::Null),
            ("~", Plain::Null),
            ("null", Plain::Null),
            ("true", Plain::Bool(true)),
            ("FALSE", Plain::Bool(false)),
            ("yes", Plain::Text("yes")),
            ("no", Plain::Text("no")),
            ("on", Plain::Text("on")),
            ("7", Plain::Int(7)),
            ("-7", Plain::Int(-7)),
            ("0755", Plain::Int(755)),
            ("0o755", Plain::Int(0o755)),
            ("0xff", Plain::Int(255)),
            ("0x", Plain::Text("0x")),
            ("0o9", Plain::Text("0o9")),
            ("1_000", Plain::Text("1_000")),
            ("99999999999999999999", Plain::Float(1e20)),
            ("1.5", Plain::Float(1.5)),
            (".5", Plain::Float(0.5)),
            ("1e3", Plain::Float(1e3)),
            (".", Plain::Text(".")),
            ("1.2.3", Plain::Text("1.2.3")),
            ("12:30:45", Plain::Text("12:30:45")),
            ("2026-01-02", Plain::Text("2026-01-02")),
            ("+", Plain::Text("+")),
            (".inf", Plain::Float(f64::INFINITY)),
        ];
        for (text, expected) in table {
            assert_eq!(Scalar::new(text, false).plain(), expected, "{text}");
        }
        assert_eq!(Scalar::new("true", true).plain(), Plain::Text("true"));
    }
}
