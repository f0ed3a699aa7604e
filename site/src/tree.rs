//! The files of a site, as bytes by path: what a revision is made of. Where they come from is `folder`'s or a push's business.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::limits::{MAX_FILE, MAX_FILES, MAX_PART, MAX_PATH, MAX_SITE};

/// The path of a file inside of a site: parts of plain names joined by `/`, never upwards, never hidden.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SitePath(Arc<str>);

/// All files of a site.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    files: BTreeMap<SitePath, Arc<[u8]>>,
    bytes: usize,
}

/// The hash of all paths and contents: two trees with the same are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TreeHash(pub [u8; 32]);

/// Why a path or file cannot be part of a site.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// The path is none.
    #[error("'{path}' is no path of a site: {why}")]
    Path {
        /// As given, made safe to show.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// One file is too large.
    #[error("{path} has {bytes} bytes; a file of a site has at most {MAX_FILE}")]
    FileTooLarge {
        /// The file.
        path: SitePath,
        /// Its size.
        bytes: usize,
    },
    /// All files together are too large.
    #[error("the site has more than {MAX_SITE} bytes")]
    TooLarge,
    /// There are too many files.
    #[error("the site has more than {MAX_FILES} files")]
    TooMany,
}

impl SitePath {
    /// Reads a path.
    ///
    /// # Errors
    /// When it leaves the site, is hidden, or is not plain.
    pub fn parse(text: &str) -> Result<Self, TreeError> {
        let refuse = |why| Err(TreeError::Path { path: common::escape::text(text), why });
        if text.is_empty() || text.len() > MAX_PATH {
            return refuse("it has 1 to 1024 bytes");
        }
        if text.contains('\\') {
            return refuse("a backslash stands in none");
        }
        if text.chars().any(|character| character.is_control()) {
            return refuse("a control character stands in none");
        }
        for part in text.split('/') {
            match part {
                "" => return refuse("it has an empty part; it does not begin or end with a slash"),
                "." | ".." => return refuse("it goes nowhere but down"),
                _ if part.starts_with('.') => return refuse("hidden files are no part of a site"),
                _ if part.len() > MAX_PART => return refuse("a part has at most 255 bytes"),
                _ => {}
            }
        }
        Ok(Self(text.into()))
    }

    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its parts.
    pub fn parts(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }
}

impl fmt::Display for SitePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Tree {
    /// Puts a file in its place; the one that was there is replaced.
    ///
    /// # Errors
    /// When it, or the site with it, is too large.
    pub fn insert(&mut self, path: SitePath, content: impl Into<Arc<[u8]>>) -> Result<(), TreeError> {
        let content = content.into();
        if content.len() > MAX_FILE {
            return Err(TreeError::FileTooLarge { path, bytes: content.len() });
        }
        let before = self.files.get(&path).map_or(0, |known| known.len());
        let bytes = self.bytes - before + content.len();
        if bytes > MAX_SITE {
            return Err(TreeError::TooLarge);
        }
        if !self.files.contains_key(&path) && self.files.len() >= MAX_FILES {
            return Err(TreeError::TooMany);
        }
        self.bytes = bytes;
        self.files.insert(path, content);
        Ok(())
    }

    /// The content of a file.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Arc<[u8]>> {
        self.files.get(&SitePath(path.into()))
    }

    /// All files by path.
    pub fn iter(&self) -> impl Iterator<Item = (&SitePath, &Arc<[u8]>)> {
        self.files.iter()
    }

    /// How many files there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Its hash. Lengths stand before paths and contents, so that no two trees are written alike.
    #[must_use]
    pub fn hash(&self) -> TreeHash {
        let mut hasher = blake3::Hasher::new();
        for (path, content) in &self.files {
            for part in [path.as_str().as_bytes(), content] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part);
            }
        }
        TreeHash(*hasher.finalize().as_bytes())
    }
}

impl fmt::Display for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", blake3::Hash::from_bytes(self.0).to_hex())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_plain_paths_downwards_are_paths() {
        for good in ["a", "data/web.yml", "files/web/ü b.txt", "a/b/c/d", "a..b", "x.-_"] {
            assert!(SitePath::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "../a",
            "a/../b",
            "a/./b",
            ".git/config",
            "a/.hidden",
            "a\\b",
            "a\nb",
            "a\0b",
        ] {
            assert!(SitePath::parse(bad).is_err(), "{bad:?}");
        }
        assert!(SitePath::parse(&"a".repeat(255)).is_ok() && SitePath::parse(&"a".repeat(256)).is_err());
        assert!(SitePath::parse(&"a/".repeat(MAX_PATH)).is_err());
    }

    #[test]
    fn a_tree_is_bounded_and_its_hash_is_that_of_its_files() {
        let path = |text: &str| SitePath::parse(text).unwrap();
        let mut one = Tree::default();
        one.insert(path("a"), *b"bc").unwrap();
        let mut two = Tree::default();
        two.insert(path("ab"), *b"c").unwrap();
        assert_ne!(one.hash(), two.hash());
        two.insert(path("ab"), *b"d").unwrap();
        let mut three = Tree::default();
        three.insert(path("ab"), *b"d").unwrap();
        assert_eq!(two.hash(), three.hash());
        let large = vec![0; MAX_FILE + 1];
        assert!(matches!(three.insert(path("x"), large), Err(TreeError::FileTooLarge { .. })));
        for part in 0..MAX_SITE / MAX_FILE {
            three.insert(path(&format!("f{part}")), vec![0; MAX_FILE - 1]).unwrap();
        }
        assert_eq!(three.insert(path("last"), vec![0; MAX_FILE]), Err(TreeError::TooLarge));
        assert_eq!((three.len(), three.get("ab").map(|content| content.len())), (MAX_SITE / MAX_FILE + 1, Some(1)));
    }

    proptest! {
        #[test]
        fn what_is_accepted_never_leaves_its_folder(text in "[a./\\\\ ]{0,12}") {
            if let Ok(path) = SitePath::parse(&text) {
                let joined = std::path::Path::new("/site").join(path.as_str());
                prop_assert!(joined.starts_with("/site"));
                prop_assert!(joined.components().all(|part| !matches!(part, std::path::Component::ParentDir)));
            }
        }
    }
}
