//! Asks a person for something that nobody else should see on the screen.

use std::io::{self, BufRead as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

/// Asks on the terminal and reads a line without showing it. The terminal is as it was afterwards, also when the reading
/// fails.
pub(super) fn unseen(question: &str) -> io::Result<String> {
    let terminal = io::stdin();
    let before = tcgetattr(&terminal)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    write!(io::stderr().lock(), "{question}")?;
    tcsetattr(&terminal, OptionalActions::Flush, &silent)?;
    let mut line = String::new();
    let read = terminal.lock().read_line(&mut line);
    tcsetattr(&terminal, OptionalActions::Flush, &before)?;
    // The end of the line was not shown either.
    writeln!(io::stderr().lock())?;
    read.map(|_| line)
}
