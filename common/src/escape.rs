//! Text of strangers made safe for terminals and logs: one event stays one line, and nothing moves the cursor.

use std::fmt::Write;

/// Characters shown at the most; the rest is counted.
const MAX_CHARACTERS: usize = 1_000;

/// Shows bytes as one safe line: control characters, invisible and direction-changing ones and invalid UTF-8 are
/// escaped, and a long text is cut.
#[must_use]
pub fn text(bytes: impl AsRef<[u8]>) -> String {
    let mut shown = String::new();
    let mut count = 0;
    for chunk in bytes.as_ref().utf8_chunks() {
        for character in chunk.valid().chars() {
            count += 1;
            if count <= MAX_CHARACTERS {
                push(&mut shown, character);
            }
        }
        for byte in chunk.invalid() {
            count += 1;
            if count <= MAX_CHARACTERS {
                // Writing to a String cannot fail.
                let _ = write!(shown, "\\x{byte:02x}");
            }
        }
    }
    if count > MAX_CHARACTERS {
        let _ = write!(shown, "… ({} more)", count - MAX_CHARACTERS);
    }
    shown
}

/// Tells whether a character may reach a terminal as it is.
#[must_use]
pub fn is_plain(character: char) -> bool {
    !character.is_control()
        && !matches!(
            character,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
                | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

fn push(shown: &mut String, character: char) {
    if is_plain(character) {
        shown.push(character);
    } else {
        shown.extend(character.escape_default());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Protocol R-BYE-2.
    #[test]
    fn cursor_moves_bells_and_tricks_are_shown_not_done() {
        assert_eq!(text("a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(text("x\u{202e}y"), "x\\u{202e}y");
        assert_eq!(text(b"\xff\xfeok"), "\\xff\\xfeok");
        assert_eq!(text("grün ✓"), "grün ✓");
        assert_eq!(text("a".repeat(1002)), format!("{}… (2 more)", "a".repeat(1000)));
    }

    /// What terminals and logs obey, by itself and in the middle of other text.
    #[test]
    fn a_million_texts_of_an_attacker_stay_one_line_and_move_nothing() {
        const PIECES: [&str; 16] = [
            "web1",
            "\u{1b}[2J",
            "\u{1b}]0;title\u{7}",
            "\n",
            "\r",
            "\t",
            "\0",
            "\u{7f}",
            "\u{9b}31m",
            "\u{202e}txt",
            "\u{2066}",
            "\u{200b}",
            "\u{feff}",
            "é",
            "\u{e0041}",
            "\u{2028}",
        ];
        let mut dice = 0x2545_f491_4f6c_dd1d_u64;
        let mut roll = |below: usize| {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            (dice % below as u64) as usize
        };
        let mut bytes = Vec::new();
        for _ in 0..1_000_000 {
            bytes.clear();
            for _ in 0..=roll(4) {
                bytes.extend_from_slice(PIECES[roll(PIECES.len())].as_bytes());
                if roll(4) == 0 {
                    bytes.push(roll(256) as u8);
                }
            }
            let shown = text(&bytes);
            assert!(shown.chars().all(is_plain) && shown.lines().count() <= 1, "{bytes:x?}: {shown:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_but_plain_characters_ever_comes_out(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(text(&bytes).chars().all(is_plain));
        }
    }
}
