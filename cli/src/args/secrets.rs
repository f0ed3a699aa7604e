//! Secrets on the command line are named, never written: command lines are public on this host.

use std::path::PathBuf;

/// A variable whose value is secret, and where its value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretVar {
    /// Its name, for the command.
    pub name: String,
    /// Where we get it.
    pub from: SecretFrom,
}

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretFrom {
    /// In our own variable of the same name.
    Environment,
    /// On our standard input.
    Input,
    /// In a file.
    File(PathBuf),
}

/// Reads `NAME`, `NAME=FILE` or `NAME=-`.
///
/// # Errors
/// When there is no name, or `=` and nothing behind it.
pub fn secret_var(text: &str) -> Result<SecretVar, String> {
    let (name, from) = match text.split_once('=') {
        None => (text, SecretFrom::Environment),
        Some((_, "")) => return Err("the file behind '=' is missing; without '=' our own variable is taken".to_owned()),
        Some((name, "-")) => (name, SecretFrom::Input),
        Some((name, file)) => (name, SecretFrom::File(file.into())),
    };
    if name.is_empty() {
        return Err("the name is missing".to_owned());
    }
    Ok(SecretVar { name: name.to_owned(), from })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_named_with_the_place_where_it_is() {
        let read = |text| secret_var(text).map(|var| (var.name, var.from));
        assert_eq!(read("TOKEN"), Ok(("TOKEN".to_owned(), SecretFrom::Environment)));
        assert_eq!(read("TOKEN=-"), Ok(("TOKEN".to_owned(), SecretFrom::Input)));
        assert_eq!(read("TOKEN=/a=b"), Ok(("TOKEN".to_owned(), SecretFrom::File("/a=b".into()))));
        assert!(read("TOKEN=").is_err() && read("=x").is_err() && read("").is_err());
    }
}
