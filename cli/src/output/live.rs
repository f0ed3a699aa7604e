//! Output of commands as it arrives: exact bytes for one command into a file or pipe, escaped for a terminal, in whole
//! lines behind the agent's name when several speak at once.
//!
//! Only bytes go in and bytes come out here; who writes them is `output::Sink`.

use std::fmt::Write as _;

use common::escape;

/// A line longer than this is broken, so that one host without newlines costs bounded memory.
const LONGEST_LINE: usize = 64 * 1024;

/// What happens to the bytes of one stream of one command on their way out.
#[derive(Debug)]
pub enum Passage {
    /// Nothing.
    Exact,
    /// Control characters are shown instead of obeyed.
    Escaped(Escaper),
    /// Whole lines, each behind a prefix.
    Lines(Lines),
}

impl Passage {
    /// Takes what arrived and returns what may be written now.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Exact => bytes.to_vec(),
            Self::Escaped(escaper) => escaper.take(bytes).into_bytes(),
            Self::Lines(lines) => lines.take(bytes),
        }
    }

    /// Returns what was held back when nothing more will arrive.
    pub fn finish(&mut self) -> Vec<u8> {
        match self {
            Self::Exact => Vec::new(),
            Self::Escaped(escaper) => escaper.finish().into_bytes(),
            Self::Lines(lines) => lines.finish(),
        }
    }
}

/// Makes a stream of bytes safe for a terminal. Newline and tab pass, a carriage return passes before a newline only.
#[derive(Debug, Default)]
pub struct Escaper {
    /// The beginning of a character whose rest has not arrived.
    held: Vec<u8>,
    /// The last character was a carriage return that has not been shown yet.
    is_return_held: bool,
}

impl Escaper {
    /// Takes bytes and returns the text that is complete.
    pub fn take(&mut self, bytes: &[u8]) -> String {
        let joined;
        let bytes = if self.held.is_empty() {
            bytes
        } else {
            self.held.extend_from_slice(bytes);
            joined = std::mem::take(&mut self.held);
            &joined
        };
        let mut shown = String::with_capacity(bytes.len());
        let mut rest = bytes;
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    self.push_all(&mut shown, valid);
                    return shown;
                }
                Err(error) => {
                    let (valid, behind) = rest.split_at(error.valid_up_to());
                    self.push_all(&mut shown, &String::from_utf8_lossy(valid));
                    let Some(length) = error.error_len() else {
                        self.held = behind.to_vec();
                        return shown;
                    };
                    let (broken, after) = behind.split_at(length.min(behind.len()));
                    self.push_bytes(&mut shown, broken);
                    rest = after;
                }
            }
        }
    }

    /// Returns what was held back.
    pub fn finish(&mut self) -> String {
        let mut shown = String::new();
        let held = std::mem::take(&mut self.held);
        self.push_bytes(&mut shown, &held);
        self.flush_return(&mut shown);
        shown
    }

    fn push_all(&mut self, shown: &mut String, text: &str) {
        for character in text.chars() {
            match character {
                '\n' => {
                    self.is_return_held = false;
                    shown.push('\n');
                }
                '\r' => {
                    self.flush_return(shown);
                    self.is_return_held = true;
                }
                _ => {
                    self.flush_return(shown);
                    if character == '\t' || escape::is_plain(character) {
                        shown.push(character);
                    } else {
                        shown.extend(character.escape_default());
                    }
                }
            }
        }
    }

    fn push_bytes(&mut self, shown: &mut String, bytes: &[u8]) {
        for byte in bytes {
            self.flush_return(shown);
            // Writing to a String cannot fail.
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }

    fn flush_return(&mut self, shown: &mut String) {
        if std::mem::take(&mut self.is_return_held) {
            shown.push_str("\\r");
        }
    }
}

/// Cuts a stream into lines and puts a prefix before each.
#[derive(Debug)]
pub struct Lines {
    prefix: String,
    escaper: Option<Escaper>,
    line: Vec<u8>,
}

impl Lines {
    /// Starts with nothing; with an escaper for a terminal, without one the bytes stay exact.
    #[must_use]
    pub fn new(prefix: String, escaper: Option<Escaper>) -> Self {
        Self { prefix, escaper, line: Vec::new() }
    }

    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        let safe;
        let bytes = match &mut self.escaper {
            Some(escaper) => {
                safe = escaper.take(bytes).into_bytes();
                &safe
            }
            None => bytes,
        };
        let mut out = Vec::with_capacity(bytes.len() + self.prefix.len());
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for part in piece.chunks(LONGEST_LINE) {
                if self.line.len() + part.len() > LONGEST_LINE + 1 {
                    self.end_line(&mut out);
                }
                self.line.extend_from_slice(part);
            }
            if piece.ends_with(b"\n") {
                self.end_line(&mut out);
            }
        }
        out
    }

    fn finish(&mut self) -> Vec<u8> {
        if let Some(escaper) = &mut self.escaper {
            let rest = escaper.finish();
            self.line.extend_from_slice(rest.as_bytes());
        }
        let mut out = Vec::new();
        if !self.line.is_empty() {
            self.end_line(&mut out);
        }
        out
    }

    fn end_line(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.prefix.as_bytes());
        out.append(&mut self.line);
        if out.last() != Some(&b'\n') {
            out.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(chunks: &[&[u8]]) -> String {
        let mut escaper = Escaper::default();
        let mut shown: String = chunks.iter().map(|chunk| escaper.take(chunk)).collect();
        shown.push_str(&escaper.finish());
        shown
    }

    #[test]
    fn a_terminal_is_never_commanded() {
        for (chunks, shown) in [
            (&[&b"plain\ttext\n"[..]][..], "plain\ttext\n"),
            (&[b"\x1b[2J\x07"], "\\u{1b}[2J\\u{7}"),
            (&[b"dos\r\nline\r\n"], "dos\nline\n"),
            (&[b"10%\r20%\r"], "10%\\r20%\\r"),
            (&[b"a\r", b"\nb"], "a\nb"),
            (&[b"\xc3", b"\xbc"], "ü"),
            (&[b"\xf0\x9f", b"\x8c", b"\xb6"], "🌶"),
            (&[b"\xff\xc3"], "\\xff\\xc3"),
            (&[b"\xc3", b"x"], "\\xc3x"),
            (&["\u{202e}".as_bytes()], "\\u{202e}"),
            (&[b"nul\0"], "nul\\u{0}"),
        ] {
            assert_eq!(escaped(chunks), shown, "{chunks:?}");
        }
    }

    #[test]
    fn where_a_stream_is_cut_makes_no_difference() {
        let bytes = "grün\r\n\u{1b}[1m✓ 100%\r200%\n".as_bytes();
        let whole = escaped(&[bytes]);
        for cut in 0..bytes.len() {
            let (left, right) = bytes.split_at(cut);
            assert_eq!(escaped(&[left, right]), whole, "cut at {cut}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(escaped(&single), whole);
    }

    #[test]
    fn lines_of_several_agents_are_whole_and_named() {
        let mut lines = Passage::Lines(Lines::new("web1 | ".into(), None));
        assert_eq!(lines.take(b"a\nb"), b"web1 | a\n");
        assert_eq!(lines.take(b"c\n\n"), b"web1 | bc\nweb1 | \n");
        assert_eq!(lines.take(b"no end"), b"");
        assert_eq!(lines.finish(), b"web1 | no end\n");
        assert_eq!(lines.finish(), b"");
    }

    #[test]
    fn a_line_without_end_costs_bounded_memory() {
        let mut lines = Lines::new("w | ".into(), None);
        let mut written = 0;
        for _ in 0..100 {
            written += lines.take(&[b'x'; 10_000]).iter().filter(|byte| **byte == b'x').count();
            assert!(lines.line.len() <= LONGEST_LINE + 1);
        }
        written += lines.finish().iter().filter(|byte| **byte == b'x').count();
        assert_eq!(written, 1_000_000, "nothing is lost");
    }

    #[test]
    fn exact_means_exact() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut passage = Passage::Exact;
        assert_eq!(passage.take(&bytes), bytes);
        assert!(passage.finish().is_empty());
    }
}
