//! Printing an error with everything that led to it.

use std::error::Error;
use std::fmt;

/// Displays an error and its causes in one line: `outer: middle: root`.
pub struct Chain<'a>(pub &'a (dyn Error + 'a));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("reading the file")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn the_whole_chain_is_one_line() {
        let error = Outer(std::io::Error::other("no space"));
        assert_eq!(Chain(&error).to_string(), "reading the file: no space");
    }
}
