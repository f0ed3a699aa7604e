//! Numbers of users: read the same way by whoever decides about a name and by whoever becomes it.

/// The number a text is: `0`, or digits without a zero in front. Everything else is a name, or nothing; `+0` and `00` must
/// never pass for another user than root where rights are decided and for root where they are used.
///
/// The largest number is none: the kernel reads it as "leave it as it is".
#[must_use]
pub fn number(text: &str) -> Option<u32> {
    let is_plain = text == "0" || (!text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()));
    if !is_plain {
        return None;
    }
    text.parse().ok().filter(|number| *number != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_digits_are_a_number() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1000", Some(1000)),
            ("4294967294", Some(4_294_967_294)),
            ("4294967295", None),
            ("4294967296", None),
            ("", None),
            ("+0", None),
            ("-0", None),
            ("00", None),
            ("01", None),
            ("0x0", None),
            (" 0", None),
            ("root", None),
        ] {
            assert_eq!(number(text), expected, "{text:?}");
        }
    }
}
