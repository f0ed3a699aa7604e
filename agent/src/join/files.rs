//! What a join leaves on disk. All functions block.
//!
//! ```text
//! <folder of agent.yml>/join.key    the key while the join is not done: a join that was cut short goes on with it
//!                       key.pem  ca.pem  cert.pem  agent.yml     written in this order, then join.key goes
//! ```
//! An identity that is there already is never written over, unless somebody insists; a half-written one of this join is
//! recognised by its key and finished.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use common::config::ConfigError;
use common::crash;
use common::durable;
use common::id::Name;
use common::tls::{self, MaterialError};

use crate::commands::{Context, FileError};
use crate::config::{Address, AgentConfig};
use crate::identity::Pem;

/// Largest file of ours that is read back.
const MAX_BYTES: u64 = 1024 * 1024;

/// Where the files of this host's agent are, and what they hold already.
#[derive(Debug)]
pub(super) struct Place {
    /// The configuration file.
    config: PathBuf,
    /// What stands in it, if it is there.
    existing: Option<AgentConfig>,
    cert: PathBuf,
    key: PathBuf,
    ca: PathBuf,
    /// The key of a join that is not done.
    pending: PathBuf,
}

/// What the configuration is to say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Where managers listen.
    pub(super) managers: &'a [String],
    /// The name of this host.
    pub(super) name: &'a Name,
    /// The state directory, where it is not the usual one.
    pub(super) state_dir: Option<&'a Path>,
}

/// Why the files of this host do not let it join.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilesError {
    #[error("the configuration that is there cannot be used")]
    Config(#[source] ConfigError),
    #[error("this host has an identity already: {who} (--force replaces it)")]
    Identity { who: String },
    #[error("{} names the managers {found}, the token {wanted}; change `managers` there, or let --force do it", file.display())]
    Managers { file: PathBuf, found: String, wanted: String },
    #[error("{} says {found}, the command line {wanted}; they must agree", file.display())]
    Disagree { file: PathBuf, found: String, wanted: String },
    #[error("the managers in {} cannot be replaced by a program; change `managers` there to {wanted}", file.display())]
    ByHand { file: PathBuf, wanted: String },
    #[error("the key of the join that was cut short cannot be used; remove it to begin anew")]
    Key(#[source] MaterialError),
    #[error("failed to keep what belongs to this host")]
    File(#[source] FileError),
}

impl Place {
    /// Looks at what is there; the usual names beside the configuration, or those it gives.
    ///
    /// # Errors
    /// When a configuration is there and makes no sense.
    pub(super) fn look(config: &Path) -> Result<Self, FilesError> {
        let existing = match common::config::load::<AgentConfig>(config) {
            Ok(mut found) => {
                found.find_beside(config);
                Some(found)
            }
            Err(ConfigError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(FilesError::Config(error)),
        };
        let folder = config.parent().unwrap_or(Path::new(""));
        let beside = |name: &str| folder.join(name);
        let named = |of: fn(&AgentConfig) -> &PathBuf, usual: &str| {
            existing.as_ref().map_or_else(|| beside(usual), |found| of(found).clone())
        };
        Ok(Self {
            cert: named(|found| &found.cert, "cert.pem"),
            key: named(|found| &found.key, "key.pem"),
            ca: named(|found| &found.ca, "ca.pem"),
            pending: beside("join.key"),
            config: config.to_owned(),
            existing,
        })
    }

    /// The name that the configuration gives this host.
    pub(super) fn name(&self) -> Option<&Name> {
        self.existing.as_ref().and_then(|found| found.name.as_ref())
    }

    /// Refuses what would be lost or contradict itself, before anybody is asked for anything.
    ///
    /// # Errors
    /// What stands in the way.
    pub(super) fn check(&self, wanted: Wanted<'_>, force: bool) -> Result<(), FilesError> {
        if let Some(found) = &self.existing {
            self.check_config(found, wanted, force)?;
        }
        if force || self.is_half_done() || !(self.cert.exists() || self.key.exists()) {
            return Ok(());
        }
        let who = tls::load_chain(&self.cert).ok().and_then(|chain| tls::peer_identity(chain.first()?).ok());
        let place = self.cert.display();
        let who = who.map_or_else(
            || format!("{place} or {}", self.key.display()),
            |found| format!("`{}` of cluster `{}` in {place}", found.name, found.cluster),
        );
        Err(FilesError::Identity { who })
    }

    fn check_config(&self, found: &AgentConfig, wanted: Wanted<'_>, force: bool) -> Result<(), FilesError> {
        let disagree =
            |found: String, wanted: String| FilesError::Disagree { file: self.config.clone(), found, wanted };
        if let Some(name) = found.name.as_ref().filter(|name| *name != wanted.name) {
            return Err(disagree(format!("`name: {name}`"), format!("`{}`", wanted.name)));
        }
        if let Some(state_dir) = wanted.state_dir.filter(|path| **path != found.state_dir) {
            let found = format!("`state_dir: {}`", found.state_dir.display());
            return Err(disagree(found, format!("`{}`", state_dir.display())));
        }
        if force || !are_strangers(&found.managers, wanted.managers) {
            return Ok(());
        }
        let (found, wanted) = (found.managers.join(", "), wanted.managers.join(", "));
        Err(FilesError::Managers { file: self.config.clone(), found, wanted })
    }

    /// A join with the pending key had begun to write.
    fn is_half_done(&self) -> bool {
        match (read(&self.pending), read(&self.key)) {
            (Ok(Some(pending)), Ok(Some(key))) => pending == key,
            _ => false,
        }
    }

    /// Takes the key of a join that was cut short, or makes one with `draw` and keeps it until the join is done.
    ///
    /// # Errors
    /// When it cannot be read or kept.
    pub(super) fn key<E>(&self, draw: impl FnOnce() -> Result<String, E>) -> Result<Result<String, E>, FilesError> {
        if let Some(found) = read(&self.pending).context("read", &self.pending).map_err(FilesError::File)? {
            // Whoever else has read it could go on with this join as well.
            tls::load_key(&self.pending).map_err(FilesError::Key)?;
            return Ok(Ok(found));
        }
        let drawn = match draw() {
            Ok(drawn) => drawn,
            Err(error) => return Ok(Err(error)),
        };
        let folder = self.pending.parent().unwrap_or(Path::new("."));
        make_folder(folder)
            .context("make", folder)
            .and_then(|()| durable::replace(&self.pending, drawn.as_bytes()).context("write", &self.pending))
            .map_err(FilesError::File)?;
        crash::point("join.key");
        Ok(Ok(drawn))
    }

    /// Forgets the key: the manager has refused it for good.
    pub(super) fn forget_key(&self) {
        // A key that nobody certified is worth nothing; the next join would go on with it.
        let _ = fs::remove_file(&self.pending);
    }

    /// Writes the identity and the configuration; from then on the host is an agent.
    ///
    /// # Errors
    /// The first step that failed; the same join can be repeated.
    pub(super) fn write(&self, pem: Pem<'_>, wanted: Wanted<'_>) -> Result<(), FilesError> {
        let steps = [
            (&self.key, pem.key, "join.wrote_key"),
            (&self.ca, pem.bundle, "join.wrote_authorities"),
            (&self.cert, pem.chain, "join.wrote_certificate"),
        ];
        for (path, text, point) in steps {
            let folder = path.parent().unwrap_or(Path::new("."));
            make_folder(folder).context("make", folder).map_err(FilesError::File)?;
            durable::replace(path, text.as_bytes()).context("write", path).map_err(FilesError::File)?;
            crash::point(point);
        }
        self.write_config(wanted)?;
        crash::point("join.wrote_config");
        fs::remove_file(&self.pending).context("remove", &self.pending).map_err(FilesError::File)
    }

    fn write_config(&self, wanted: Wanted<'_>) -> Result<(), FilesError> {
        let text = match &self.existing {
            None => fresh_config(wanted),
            Some(found) if are_strangers(&found.managers, wanted.managers) => {
                let before = read_text(&self.config).context("read", &self.config).map_err(FilesError::File)?;
                let old = self.config.with_extension("yml.old");
                let by_hand = || FilesError::ByHand { file: self.config.clone(), wanted: wanted.managers.join(", ") };
                let text = with_managers(&before, wanted.managers).ok_or_else(by_hand)?;
                durable::replace(&old, before.as_bytes()).context("write", &old).map_err(FilesError::File)?;
                text
            }
            Some(_) => return Ok(()),
        };
        durable::replace(&self.config, text.as_bytes()).context("write", &self.config).map_err(FilesError::File)
    }
}

/// Tells whether two lists have no address in common.
fn are_strangers(found: &[String], wanted: &[String]) -> bool {
    let addresses = |list: &[String]| -> BTreeSet<String> {
        list.iter().filter_map(|text| Address::parse(text).ok()).map(|address| address.to_string()).collect()
    };
    addresses(found).is_disjoint(&addresses(wanted))
}

/// The configuration of a host that had none.
fn fresh_config(wanted: Wanted<'_>) -> String {
    // Quotes of JSON are quotes of YAML, whatever stands between them.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut text = String::from(
        "# Written by `paprika-agent join`. All keys: examples/config/agent.yml.\n\
         # Paths without a slash in front begin at the folder of this file.\nmanagers:\n",
    );
    for address in wanted.managers {
        text.push_str(&format!("  - {}\n", quoted(address)));
    }
    text.push_str(&format!("name: {}\n", quoted(wanted.name.as_str())));
    if let Some(path) = wanted.state_dir {
        text.push_str(&format!("state_dir: {}\n", quoted(&path.to_string_lossy())));
    }
    text.push_str("cert: cert.pem\nkey: key.pem\nca: ca.pem\n");
    text
}

/// Replaces the entry `managers` of a configuration and leaves everything else as it stands; `None` when that is not
/// what comes out.
fn with_managers(text: &str, managers: &[String]) -> Option<String> {
    let mut lines = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        let continues = line.is_empty() || line.starts_with([' ', '\t', '-', ']', '#']);
        inside = inside && continues;
        if line.starts_with("managers:") {
            inside = true;
            lines.push(format!("managers: {}", serde_json::to_string(managers).ok()?));
        } else if !inside || line.starts_with('#') || line.is_empty() {
            lines.push(line.to_owned());
        }
    }
    let changed = lines.join("\n") + "\n";
    let parse = |text: &str| common::config::parse::<AgentConfig>(text, "agent.yml").ok();
    let expected = AgentConfig { managers: managers.to_vec(), ..parse(text)? };
    let value = |config: &AgentConfig| serde_json::to_value(config).ok();
    (value(&parse(&changed)?)? == value(&expected)?).then_some(changed)
}

/// Makes a folder that only its owner enters; those above it are for everybody, as `/etc/paprika` is.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent() {
        fs::create_dir_all(above)?;
    }
    fs::DirBuilder::new().mode(0o700).create(folder)
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match read_text(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    let bytes = durable::read_bounded(File::open(path)?, MAX_BYTES)?;
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::convert::Infallible;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const PEM: Pem<'_> = Pem { key: KEY, chain: "new chain", bundle: "new bundle" };

    struct Bench {
        folder: tempfile::TempDir,
        managers: Vec<String>,
        name: Name,
    }

    impl Bench {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            Self { folder, managers: vec!["m1:7051".into(), "[::1]:9".into()], name: "web1".parse().unwrap() }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join("etc/agent").join(name)
        }

        fn put(&self, name: &str, text: &str) {
            fs::create_dir_all(self.path("")).unwrap();
            fs::write(self.path(name), text).unwrap();
        }

        fn text(&self, name: &str) -> Option<String> {
            fs::read_to_string(self.path(name)).ok()
        }

        fn wanted(&self) -> Wanted<'_> {
            Wanted { managers: &self.managers, name: &self.name, state_dir: None }
        }

        fn look(&self) -> Place {
            Place::look(&self.path("agent.yml")).unwrap()
        }
    }

    /// A key is a key: what was kept is looked at before it is used again.
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";

    fn draw() -> Result<String, Infallible> {
        Ok(KEY.to_owned())
    }

    #[test]
    fn a_fresh_host_gets_files_that_only_its_owner_reads_and_a_configuration_that_loads() {
        let bench = Bench::new();
        let place = bench.look();
        let wanted = Wanted { state_dir: Some(Path::new("/srv/it's: a state")), ..bench.wanted() };
        place.check(wanted, false).unwrap();
        assert_eq!(place.key(draw).unwrap(), Ok(KEY.to_owned()));
        place.write(PEM, wanted).unwrap();
        let mode = |name: &str| fs::metadata(bench.path(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(["agent.yml", "cert.pem", "key.pem", "ca.pem"].map(mode), [0o600; 4]);
        assert_eq!(mode(""), 0o700);
        assert_eq!(fs::metadata(bench.folder.path().join("etc")).unwrap().permissions().mode() & 0o055, 0o055);
        assert_eq!(bench.text("join.key"), None);
        let mut config: AgentConfig = common::config::load(&bench.path("agent.yml")).unwrap();
        config.find_beside(&bench.path("agent.yml"));
        config.validate().unwrap();
        assert_eq!((config.managers.as_slice(), config.name.as_ref()), (wanted.managers, Some(wanted.name)));
        assert_eq!((config.state_dir.as_path(), config.key), (Path::new("/srv/it's: a state"), bench.path("key.pem")));
    }

    #[test]
    fn an_identity_is_written_over_only_by_force() {
        for present in ["key.pem", "cert.pem"] {
            let bench = Bench::new();
            bench.put(present, "precious");
            let refused = bench.look().check(bench.wanted(), false);
            assert!(matches!(&refused, Err(FilesError::Identity { who }) if who.contains(present)), "{refused:?}");
            assert_eq!(bench.text(present).as_deref(), Some("precious"));
            let place = bench.look();
            place.check(bench.wanted(), true).unwrap();
            place.key(draw).unwrap().unwrap();
            place.write(PEM, bench.wanted()).unwrap();
            assert_eq!(bench.text("key.pem").as_deref(), Some(KEY));
        }
    }

    /// Wherever a join is cut short, the next one goes on with the same key and asks nobody to insist.
    #[test]
    fn a_join_that_was_cut_short_goes_on_with_its_key() {
        for written in 0..=4 {
            let bench = Bench::new();
            let place = bench.look();
            place.key(draw).unwrap().unwrap();
            let files = [("key.pem", KEY), ("ca.pem", "new bundle"), ("cert.pem", "new chain")];
            for (name, text) in files.iter().take(written) {
                bench.put(name, text);
            }
            if written == 4 {
                place.write_config(bench.wanted()).unwrap();
            }
            let again = bench.look();
            again.check(bench.wanted(), false).unwrap();
            let other = || Ok::<_, Infallible>("another key".to_owned());
            assert_eq!(again.key(other).unwrap(), Ok(KEY.to_owned()), "{written}");
            again.write(PEM, bench.wanted()).unwrap();
            for (name, text) in files {
                assert_eq!(bench.text(name).as_deref(), Some(text));
            }
            assert!(bench.text("join.key").is_none() && bench.text("agent.yml").is_some());
        }
    }

    #[test]
    fn the_key_of_an_older_join_is_no_permission_to_write_over_an_identity() {
        let bench = Bench::new();
        bench.look().key(draw).unwrap().unwrap();
        bench.put("key.pem", "brought by hand");
        bench.put("cert.pem", "brought by hand");
        assert!(matches!(bench.look().check(bench.wanted(), false), Err(FilesError::Identity { .. })));
        bench.look().forget_key();
        assert_eq!(bench.text("join.key"), None);
    }

    #[test]
    fn a_pending_key_that_others_can_read_is_not_used() {
        let bench = Bench::new();
        bench.look().key(draw).unwrap().unwrap();
        fs::set_permissions(bench.path("join.key"), fs::Permissions::from_mode(0o640)).unwrap();
        let refused = bench.look().key(draw);
        assert!(matches!(&refused, Err(FilesError::Key(MaterialError::Exposed { .. }))), "{refused:?}");
    }

    #[test]
    fn a_configuration_that_is_there_keeps_its_word() {
        let bench = Bench::new();
        let text =
            "# ours\nmanagers: [m1, m7]\nname: web1\nkey: own/secret.pem\ncert: cert.pem\nca: ca.pem\nlabels: {a: b}\n";
        bench.put("agent.yml", text);
        let place = bench.look();
        assert_eq!(place.name(), Some(&bench.name));
        place.check(bench.wanted(), false).unwrap();
        place.key(draw).unwrap().unwrap();
        place.write(PEM, bench.wanted()).unwrap();
        assert_eq!(bench.text("agent.yml").as_deref(), Some(text), "one manager in common is enough");
        assert_eq!(bench.text("own/secret.pem").as_deref(), Some(KEY));
    }

    #[test]
    fn what_contradicts_the_configuration_is_refused_before_anything_is_asked() {
        let bench = Bench::new();
        bench.put("agent.yml", "managers: [other:1]\nname: web2\nstate_dir: /srv/x\ncert: c\nkey: k\nca: a\n");
        let said = |wanted: Wanted<'_>, force| bench.look().check(wanted, force).unwrap_err().to_string();
        assert!(said(bench.wanted(), true).contains("`name: web2`"), "a name is not forced");
        let web2 = "web2".parse().unwrap();
        let wanted = Wanted { name: &web2, ..bench.wanted() };
        assert!(said(wanted, false).contains("other:1"));
        let elsewhere = Wanted { state_dir: Some(Path::new("/srv/y")), ..wanted };
        assert!(said(elsewhere, true).contains("`state_dir: /srv/x`"));
        bench.look().check(wanted, true).unwrap();
        bench.put("agent.yml", "managres: [a]\n");
        let broken = Place::look(&bench.path("agent.yml"));
        assert!(matches!(broken, Err(FilesError::Config(_))));
    }

    #[test]
    fn force_puts_the_managers_of_the_token_in_and_keeps_the_rest_and_the_old_text() {
        let bench = Bench::new();
        let old = "# mine\nmanagers:\n- other:1   # gone\n# next\n- another:2\nlabels:\n  site: \"x\"\ncert: c\nkey: k\nca: a\n";
        bench.put("agent.yml", old);
        let place = bench.look();
        place.check(bench.wanted(), true).unwrap();
        place.key(draw).unwrap().unwrap();
        place.write(PEM, bench.wanted()).unwrap();
        let new = bench.text("agent.yml").unwrap();
        assert_eq!(
            new,
            "# mine\nmanagers: [\"m1:7051\",\"[::1]:9\"]\n# next\nlabels:\n  site: \"x\"\ncert: c\nkey: k\nca: a\n"
        );
        assert_eq!(bench.text("agent.yml.old").as_deref(), Some(old));
    }

    #[test]
    fn a_configuration_that_cannot_be_rewritten_is_left_to_a_person() {
        assert_eq!(with_managers("{managers: [a], log: debug}\n", &["b".into()]), None);
        assert_eq!(with_managers("\"managers\": [a]\n", &["b".into()]), None);
        let several = with_managers("managers: [\n  a,\n  b\n]\nlog: info\n", &["c".into()]);
        assert_eq!(several.as_deref(), Some("managers: [\"c\"]\nlog: info\n"));
    }
}
