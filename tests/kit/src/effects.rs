//! The record of what commands really did on a host: each appends one line, and the lines are counted.
//!
//! A line is one `write` to a file opened with O_APPEND, so lines of commands that run at once never mix.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A file that commands append to.
#[derive(Debug, Clone)]
pub struct Effects {
    path: PathBuf,
}

impl Effects {
    /// Begins an empty record.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        fs::write(&path, "")?;
        Ok(Self { path })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The line of shell with which a command leaves its trace. `tag` has only letters, digits and dashes.
    #[must_use]
    pub fn line(&self, tag: &str) -> String {
        format!("echo {tag} >>'{}'", self.path.display())
    }

    /// How often each tag was written.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn counts(&self) -> io::Result<BTreeMap<String, usize>> {
        let mut counts = BTreeMap::new();
        for tag in fs::read_to_string(&self.path)?.lines() {
            *counts.entry(tag.to_owned()).or_default() += 1;
        }
        Ok(counts)
    }

    /// How often one tag was written.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn count(&self, tag: &str) -> io::Result<usize> {
        Ok(self.counts()?.get(tag).copied().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn each_run_leaves_one_line() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let effects = Effects::create(folder.path().join("effects"))?;
        for tag in ["a", "b", "a"] {
            assert!(Command::new("sh").arg("-c").arg(effects.line(tag)).status()?.success());
        }
        assert_eq!((effects.count("a")?, effects.count("b")?, effects.count("c")?), (2, 1, 0));
        Ok(())
    }
}
