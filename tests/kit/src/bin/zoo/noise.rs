//! Animals whose output is the trouble.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

use crate::{Call, floor};

/// Bytes that are written at once.
const CHUNK: usize = 64 * 1024;
/// Between two chunks of who writes for ever: about three megabytes a second.
const RHYTHM: Duration = Duration::from_millis(20);

/// One line of so many bytes and no newline; then it ends, if nothing ends it before.
pub(crate) fn long_line(call: &Call) -> ! {
    let mut left = usize::try_from(call.number(100_000_000)).unwrap_or(0);
    let chunk: Vec<u8> = (0..CHUNK).map(|at| b'a' + u8::try_from(at % 26).unwrap_or(0)).collect();
    let mut at = 0;
    call.ready();
    while left > 0 {
        // The line is the alphabet over and over, whatever the pipe takes at once.
        let piece = chunk.get(at % 26..).unwrap_or_default();
        let piece = piece.get(..left.min(piece.len())).unwrap_or_default();
        match floor::write(1, piece) {
            Some(written) => {
                left -= written;
                at += written;
            }
            None => floor::end(1),
        }
    }
    floor::end(0)
}

/// Bytes that are no text: invalid UTF-8, zeros, escapes, for ever, deaf to TERM.
pub(crate) fn garbage(call: &Call) -> ! {
    floor::ignore(libc::SIGTERM);
    let chunk: Vec<u8> =
        b"\xff\xfe\xc3\x28\xf0\x28\x8c\x28\0\x1b[2J\r\x80".iter().copied().cycle().take(CHUNK).collect();
    floor::write(1, &chunk);
    call.ready();
    loop {
        floor::write(1, &chunk);
        floor::write(2, &chunk);
        floor::moment(RHYTHM);
    }
}

/// Closes everything it was given and lives on, deaf to TERM.
pub(crate) fn mute(call: &Call) -> ! {
    floor::ignore(libc::SIGTERM);
    for number in 0..64 {
        floor::close(number);
    }
    call.stand()
}

/// Opens its output anew and truncates it, again and again, as programs do that take it for a log file.
pub(crate) fn truncater(call: &Call) -> ! {
    floor::ignore(libc::SIGTERM);
    let mut first = true;
    loop {
        for place in ["/dev/stdout", "/dev/stderr"] {
            if let Ok(mut file) = OpenOptions::new().write(true).truncate(true).create(true).open(place) {
                // A reader that went away is what this one does not care about.
                let _ = file.write_all(b"anew\n");
            }
        }
        if std::mem::take(&mut first) {
            call.ready();
        }
        floor::moment(RHYTHM);
    }
}
