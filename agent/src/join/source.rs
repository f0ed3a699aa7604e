//! Where the join token comes from: an argument, a file or standard input. Nothing of it is ever shown.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use common::join_token::{JoinToken, JoinTokenError};
use common::limits::MAX_JOIN_TOKEN_BYTES;

/// What a line may have around the token: blanks and a newline.
const AROUND: u64 = 64;

/// Where it comes from.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// It stood on the command line, where every user of the host can see it for a moment.
    Argument(String),
    /// A file, such as a credential of systemd.
    File(PathBuf),
    /// Standard input.
    Stdin,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    #[error("the join token cannot be read from {origin}")]
    Unreadable {
        origin: String,
        #[source]
        source: io::Error,
    },
    #[error("this is no join token")]
    Token(#[source] JoinTokenError),
}

impl Source {
    /// Reads what the command line says; clap has seen to it that it is one of the two.
    pub(super) fn new(argument: Option<String>, file: Option<PathBuf>) -> Self {
        match (argument, file) {
            (_, Some(file)) if file.as_os_str() != "-" => Self::File(file),
            (Some(text), None) if text != "-" => Self::Argument(text),
            _ => Self::Stdin,
        }
    }

    /// Reads the token. Blocks until standard input ends, where it comes from there.
    ///
    /// # Errors
    /// When it cannot be read, or is none.
    pub(super) fn token(&self) -> Result<JoinToken, SourceError> {
        let bytes = match self {
            Self::Argument(text) => Ok(text.clone().into_bytes()),
            Self::File(path) => File::open(path).and_then(bounded),
            Self::Stdin => bounded(io::stdin().lock()),
        };
        let unreadable = |source| SourceError::Unreadable { origin: self.origin(), source };
        let text =
            String::from_utf8(bytes.map_err(unreadable)?).map_err(|_| SourceError::Token(JoinTokenError::Prefix))?;
        text.parse().map_err(SourceError::Token)
    }

    fn origin(&self) -> String {
        match self {
            Self::Argument(_) => "the argument".to_owned(),
            Self::File(path) => path.display().to_string(),
            Self::Stdin => "standard input".to_owned(),
        }
    }
}

/// Reads a bit more than a token may have: what is longer is refused for its length.
fn bounded(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_JOIN_TOKEN_BYTES).unwrap_or(u64::MAX).saturating_add(AROUND);
    from.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::error::Error;
    use std::fs;

    use common::pin::Pin;

    use super::*;

    #[test]
    fn a_token_comes_from_an_argument_or_a_file_and_a_dash_is_standard_input() {
        let token = JoinToken::draw(vec!["m:7051".into()], Pin::of(b"ca")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, format!("  {}\n", token.expose())).unwrap();
        assert!(Source::new(Some(token.expose()), None).token().unwrap() == token);
        assert!(Source::new(None, Some(path)).token().unwrap() == token);
        for (argument, file) in [(Some("-"), None), (None, Some("-")), (None, None)] {
            let source = Source::new(argument.map(str::to_owned), file.map(PathBuf::from));
            assert!(source == Source::Stdin);
        }
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let said = |source: Source| {
            let error = source.token().unwrap_err();
            format!("{error}: {}", error.source().map(ToString::to_string).unwrap_or_default())
        };
        for content in [&b"hunter2"[..], b"\xff\xfe", b""] {
            fs::write(&path, content).unwrap();
            let said = said(Source::File(path.clone()));
            assert!(said.contains("begins with paprikajoin_") && !said.contains("hunter2"), "{said}");
        }
        fs::write(&path, "x".repeat(MAX_JOIN_TOKEN_BYTES + 1)).unwrap();
        assert!(said(Source::File(path)).contains("at most"));
        assert!(said(Source::File("/dev/zero".into())).contains("at most"), "no more than a token is ever read");
        assert!(said(Source::File("/nowhere/token".into())).contains("/nowhere/token"));
    }
}
