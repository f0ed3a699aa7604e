//! Adds a context to the operator's file, and puts what belongs to it beside it.
//!
//! The file and what lies beside it are readable by their owner alone, whole at every moment, and nothing that is there
//! is replaced without being asked to. What else stands in the file stays: it is read as a tree, not as what this version
//! knows of it. Comments are lost by that, so a file with comments is kept as `config.yml.bak`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use common::durable;
use common::id::Name;
use serde_yaml::{Mapping, Value};

use crate::context;
use crate::error::{Failure, Kind};

/// What a context is to say.
#[derive(Debug, Clone, Default)]
pub struct NewContext {
    /// Where the manager is.
    pub api: String,
    /// The certificate to trust.
    pub ca: Option<PathBuf>,
    /// Where the token is.
    pub token_file: Option<PathBuf>,
    /// The client certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// The place for one context.
#[derive(Debug)]
pub struct Place {
    file: PathBuf,
    name: Name,
    is_replacing: bool,
}

/// What became of the file.
#[derive(Debug, PartialEq, Eq)]
pub struct Added {
    /// The file.
    pub file: PathBuf,
    /// The context that was current before, when it is another one.
    pub before: Option<String>,
    /// Where the file as it was before is kept.
    pub kept: Option<PathBuf>,
}

impl Place {
    /// Makes sure that there is a place, before anybody is asked for anything.
    ///
    /// # Errors
    /// When the file is broken, or there is a context of this name and nobody wants it replaced.
    pub fn find(file: &Path, name: Name, is_replacing: bool) -> Result<Self, Failure> {
        let config = context::load(file)?;
        if !is_replacing && config.contexts.contains_key(name.as_str()) {
            return Err(Failure::new(Kind::Usage, format!("there is a context {name} in {}", file.display()))
                .hint("--name calls this one otherwise, --force replaces it"));
        }
        // A link of somebody who keeps such files elsewhere is followed, not replaced.
        let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
        Ok(Self { file, name, is_replacing })
    }

    /// Where something of this context lies: `<name>.<what>` beside the file.
    #[must_use]
    pub fn beside(&self, what: &str) -> PathBuf {
        self.file.with_file_name(format!("{}.{what}", self.name))
    }

    /// Writes something of this context beside the file.
    ///
    /// # Errors
    /// When it is there already, or the disk refuses.
    pub fn put(&self, what: &str, text: &str) -> Result<PathBuf, Failure> {
        let path = self.beside(what);
        if !self.is_replacing && path.symlink_metadata().is_ok() {
            return Err(Failure::new(Kind::Usage, format!("{} is there already", path.display()))
                .hint("--name calls this context otherwise, --force replaces the file"));
        }
        self.make_folder()?;
        write(&path, text)?;
        Ok(path)
    }

    /// Adds the context and makes it the current one.
    ///
    /// # Errors
    /// When the file is not what it was, or the disk refuses.
    pub fn add(&self, new: &NewContext) -> Result<Added, Failure> {
        let old = match fs::read_to_string(&self.file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                let text = format!("{} cannot be read", self.file.display());
                return Err(Failure::new(Kind::Work, text).because(error));
            }
        };
        let (text, before) = self.with(&old, new)?;
        self.make_folder()?;
        let has_comments = old.lines().any(|line| line.trim_start().starts_with('#') || line.contains(" #"));
        let kept = has_comments.then(|| self.file.with_extension("yml.bak"));
        if let Some(kept) = &kept {
            write(kept, &old)?;
        }
        write(&self.file, &text)?;
        Ok(Added { file: self.file.clone(), before, kept })
    }

    /// The text of the file with the context in it, and which one was current before.
    fn with(&self, old: &str, new: &NewContext) -> Result<(String, Option<String>), Failure> {
        let unusable = |what: &str| Failure::new(Kind::Usage, format!("{} is not usable: {what}", self.file.display()));
        let tree: Value = serde_yaml::from_str(old).map_err(|error| unusable("it is not YAML").because(error))?;
        let mut top = match tree {
            Value::Mapping(top) => top,
            Value::Null => Mapping::new(),
            _ => return Err(unusable("it is no map")),
        };
        let mut contexts = match top.remove("contexts") {
            Some(Value::Mapping(contexts)) => contexts,
            None | Some(Value::Null) => Mapping::new(),
            Some(_) => return Err(unusable("contexts is no map")),
        };
        contexts.insert(text(self.name.as_str()), Value::Mapping(entry(new)?));
        let before = top.insert(text("current"), text(self.name.as_str()));
        let before = before.and_then(|value| value.as_str().map(str::to_owned));
        top.insert(text("contexts"), Value::Mapping(contexts));
        let written = serde_yaml::to_string(&top).map_err(Failure::unprintable)?;
        Ok((written, before.filter(|before| before != self.name.as_str())))
    }

    fn make_folder(&self) -> Result<(), Failure> {
        let folder = self.file.parent().unwrap_or(Path::new("."));
        durable::create_folder(folder).map_err(|error| {
            Failure::new(Kind::Work, format!("the folder {} cannot be made", folder.display())).because(error)
        })
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    durable::replace(path, text.as_bytes())
        .map_err(|error| Failure::new(Kind::Work, format!("{} cannot be written", path.display())).because(error))
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn entry(new: &NewContext) -> Result<Mapping, Failure> {
    let mut entry = Mapping::new();
    entry.insert(text("api"), text(&new.api));
    let paths = [("ca", &new.ca), ("token_file", &new.token_file), ("cert", &new.cert), ("key", &new.key)];
    for (key, path) in paths {
        let Some(path) = path else { continue };
        let shown = path.to_str().ok_or_else(|| {
            Failure::new(Kind::Usage, format!("the path {} is not UTF-8", path.display()))
                .hint("the file with the contexts is text; give the file another name")
        })?;
        entry.insert(text(key), text(shown));
    }
    Ok(entry)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn new() -> NewContext {
        NewContext { api: "https://m:7050".into(), token_file: Some("/t".into()), ..NewContext::default() }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_context_is_for_its_owner_only_and_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("paprika/config.yml");
        let place = Place::find(&file, name("prod"), false).unwrap();
        let ca = place.put("ca.pem", "CA").unwrap();
        let added = place.add(&NewContext { ca: Some(ca.clone()), ..new() }).unwrap();
        assert_eq!((added.before, added.kept), (None, None));
        assert_eq!((mode(&file), mode(&ca), mode(file.parent().unwrap())), (0o600, 0o600, 0o700));
        let config = context::load(&file).unwrap();
        assert_eq!(config.current.as_deref(), Some("prod"));
        let context = &config.contexts["prod"];
        assert_eq!((context.api.as_str(), context.ca.as_ref()), ("https://m:7050", Some(&ca)));
    }

    #[test]
    fn nothing_is_replaced_in_silence_and_the_rest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.yml");
        let text = "# mine\ncurrent: lab\ncontexts:\n  lab: {api: \"https://lab:7050\", token: abc}\n";
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let refused = Place::find(&file, name("lab"), false).unwrap_err();
        assert_eq!(refused.kind(), Kind::Usage);
        assert!(refused.lines().contains("--force"), "{}", refused.lines());
        let added = Place::find(&file, name("prod"), false).unwrap().add(&new()).unwrap();
        assert_eq!(added.before.as_deref(), Some("lab"));
        let kept = added.kept.unwrap();
        assert_eq!((fs::read_to_string(&kept).unwrap().as_str(), mode(&kept), mode(&file)), (text, 0o600, 0o600));
        let config = context::load(&file).unwrap();
        assert_eq!(config.contexts["lab"].token.as_ref().unwrap().expose(), "abc");
        assert_eq!(config.contexts.len(), 2);
        let again = Place::find(&file, name("lab"), true).unwrap().add(&new()).unwrap();
        assert_eq!(again.kept, None, "no comment is left to lose");
        assert_eq!(context::load(&file).unwrap().contexts["lab"].api, "https://m:7050");
        let place = Place::find(&file, name("other"), false).unwrap();
        fs::write(place.beside("token"), "x").unwrap();
        assert_eq!(place.put("token", "y").unwrap_err().kind(), Kind::Usage);
        assert_eq!(fs::read_to_string(place.beside("token")).unwrap(), "x");
    }

    #[test]
    fn a_broken_file_is_left_alone_and_a_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.yml");
        for broken in ["contexts: [", "contexts: 7\n", "[]\n", "banana: {}\n"] {
            fs::write(&file, broken).unwrap();
            assert_eq!(Place::find(&file, name("a"), true).unwrap_err().kind(), Kind::Usage, "{broken}");
            assert_eq!(fs::read_to_string(&file).unwrap(), broken);
        }
        let elsewhere = folder.path().join("elsewhere.yml");
        fs::write(&elsewhere, "").unwrap();
        fs::remove_file(&file).unwrap();
        symlink(&elsewhere, &file).unwrap();
        Place::find(&file, name("a"), false).unwrap().add(&new()).unwrap();
        assert!(file.symlink_metadata().unwrap().is_symlink());
        assert!(fs::read_to_string(&elsewhere).unwrap().contains("https://m:7050"));
    }
}
