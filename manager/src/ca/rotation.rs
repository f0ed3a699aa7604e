//! Which authorities are trusted and which one signs: the files in `<dir>/ca`, and the steps from one set to the next.
//!
//! ```text
//! ca.pem, ca.key                        number 1
//! ca-2.pem, ca-2.key, ca-2.cross.pem    number 2, and its certificate by the one before
//! authorities.json                      {"active": 2, "trusted": [1, 2]}; absent: number 1 alone
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::durable;
use common::id::Name;
use common::pin::Pin;
use common::tls::{self, CertificateDer};
use rcgen::{Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};
use serde::{Deserialize, Serialize};

use super::certificate::{crossed, of_authority};
use super::error::CaError;

/// Largest file that is read as the authority's.
const MAX_BYTES: u64 = 64 * 1024;
/// Authorities that are trusted at the same time: one, or two during a rotation. More would only be more keys to guard.
const MAX_TRUSTED: usize = 2;

/// A trusted authority, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trusted {
    /// Its number.
    pub number: u32,
    /// SHA-256 over its certificate.
    pub pin: Pin,
    /// When it ends, Unix time.
    pub not_after: Duration,
    /// What it is called.
    pub subject: String,
}

/// The authorities of a cluster at one moment. A step makes a new set; nothing changes inside one.
pub(super) struct Set {
    active: Arc<One>,
    /// By number, the active one included.
    trusted: Vec<Arc<One>>,
}

/// One authority.
pub(super) struct One {
    number: u32,
    pem: String,
    der: CertificateDer<'static>,
    /// Its certificate by the one before it.
    cross_pem: Option<String>,
    /// Present where it signs or will: the key of an earlier one is not even read.
    issuer: Option<Issuer<'static, KeyPair>>,
}

/// The content of `authorities.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    active: u32,
    trusted: Vec<u32>,
}

impl List {
    fn first() -> Self {
        Self { active: 1, trusted: vec![1] }
    }

    fn makes_sense(&self) -> bool {
        let ascending = self.trusted.windows(2).all(|pair| pair.first() < pair.last());
        let numbers = self.trusted.first().is_some_and(|first| *first >= 1);
        ascending && numbers && self.trusted.len() <= MAX_TRUSTED && self.trusted.contains(&self.active)
    }
}

/// The folder and what belongs into it.
pub(super) struct Folder {
    path: PathBuf,
    cluster: Name,
}

impl Set {
    /// Who signs.
    pub(super) fn active(&self) -> &One {
        &self.active
    }

    pub(super) fn numbers(&self) -> Vec<u32> {
        self.trusted.iter().map(|one| one.number).collect()
    }

    /// All that are trusted, PEM.
    pub(super) fn bundle_pem(&self) -> String {
        self.trusted.iter().map(|one| one.pem.as_str()).collect()
    }

    pub(super) fn bundle_hash(&self) -> [u8; 32] {
        let all: Vec<_> = self.trusted.iter().map(|one| one.der.clone()).collect();
        tls::bundle_hash(&all)
    }

    pub(super) fn trusted(&self) -> Vec<Trusted> {
        self.trusted.iter().map(|one| one.words()).collect()
    }

    /// What a manager shows behind its leaf (protocol R-RENEW-6): the one that signed it, and the way from there to the
    /// one before, which is all that an agent may know that was away, and what the tokens of yesterday are pinned to.
    pub(super) fn server_chain(&self) -> String {
        let mut chain = self.active.pem.clone();
        for older in self.trusted.iter().rev().filter(|one| one.number < self.active.number) {
            chain.push_str(self.active.cross_pem.as_deref().unwrap_or_default());
            chain.push_str(&older.pem);
        }
        chain
    }

    fn newest(&self) -> &One {
        self.trusted.last().unwrap_or(&self.active)
    }

    fn list(&self) -> List {
        List { active: self.active.number, trusted: self.numbers() }
    }
}

impl One {
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    pub(super) fn pin(&self) -> Pin {
        Pin::of(&self.der)
    }

    /// The means to sign.
    pub(super) fn issuer(&self) -> Result<&Issuer<'static, KeyPair>, CaError> {
        self.issuer.as_ref().ok_or(CaError::Step("this authority signs no more"))
    }

    fn words(&self) -> Trusted {
        let (subject, not_after) =
            tls::authority_words(&self.der).map_or_else(Default::default, |words| (words.subject, words.not_after));
        Trusted { number: self.number, pin: self.pin(), not_after, subject }
    }
}

impl Folder {
    pub(super) fn open(dir: &Path, cluster: &Name) -> Result<Self, CaError> {
        let path = dir.join("ca");
        durable::create_folder(&path).map_err(|source| CaError::File { path: path.clone(), source })?;
        Ok(Self { path, cluster: cluster.clone() })
    }

    /// Reads what is trusted, or makes the first authority when there is none.
    pub(super) fn load(&self, now: Duration) -> Result<Set, CaError> {
        let list = self.list()?;
        if list == List::first() {
            self.ensure_first(now)?;
        }
        self.set(&list)
    }

    /// Makes the next authority, which is trusted from now on. One that was prepared already stays.
    pub(super) fn prepare(&self, set: &Set, now: Duration) -> Result<Set, CaError> {
        if set.newest().number > set.active.number {
            return self.set(&set.list());
        }
        if set.trusted.len() >= MAX_TRUSTED {
            return Err(CaError::Step("the rotation before is not at its end: retire the earlier authority first"));
        }
        let number = set.active.number.saturating_add(1);
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(CaError::Make)?;
        self.write(&self.key(number), &pair.serialize_pem())?;
        self.write(&self.certificate(number), &of_authority(number, &self.cluster, &pair, now)?)?;
        self.write(&self.cross(number), &crossed(number, &self.cluster, &pair, set.active.issuer()?, now)?)?;
        let mut list = set.list();
        list.trusted.push(number);
        self.take(list)
    }

    /// Lets the newest authority sign. Once more changes nothing.
    pub(super) fn activate(&self, set: &Set) -> Result<Set, CaError> {
        if set.trusted.len() < MAX_TRUSTED {
            return Err(CaError::Step("there is no other authority: prepare one first"));
        }
        self.take(List { active: set.newest().number, ..set.list() })
    }

    /// Trusts nobody but the one that signs. The keys of the others are removed: they are good for nothing but misuse.
    pub(super) fn retire(&self, set: &Set) -> Result<Set, CaError> {
        if set.newest().number > set.active.number {
            return Err(CaError::Step("the newest authority does not sign yet: activate it first"));
        }
        if set.trusted.len() < MAX_TRUSTED {
            return Err(CaError::Step("there is no earlier authority to retire"));
        }
        let next = self.take(List { active: set.active.number, trusted: vec![set.active.number] })?;
        for number in set.numbers().into_iter().filter(|number| *number < set.active.number) {
            let key = self.key(number);
            if let Err(error) = fs::remove_file(&key)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %key.display(), %error, "the key of a retired authority could not be removed");
            }
        }
        Ok(next)
    }

    /// Writes down what is trusted from now on: the one moment at which a step happens.
    fn take(&self, list: List) -> Result<Set, CaError> {
        // Read back first: a list must not name what cannot be used.
        let set = self.set(&list)?;
        let text = serde_json::to_string(&list).map_err(|_| CaError::List { path: self.list_path() })?;
        self.write(&self.list_path(), &text)?;
        Ok(set)
    }

    fn list(&self) -> Result<List, CaError> {
        let path = self.list_path();
        if !path.exists() {
            return Ok(List::first());
        }
        let list: Option<List> = serde_json::from_str(&read(&path)?).ok();
        list.filter(List::makes_sense).ok_or(CaError::List { path })
    }

    fn set(&self, list: &List) -> Result<Set, CaError> {
        let mut trusted = Vec::new();
        for number in &list.trusted {
            trusted.push(Arc::new(self.one(*number, *number >= list.active)?));
        }
        let active = trusted.iter().find(|one| one.number == list.active).map(Arc::clone);
        let active = active.ok_or(CaError::List { path: self.list_path() })?;
        Ok(Set { active, trusted })
    }

    fn one(&self, number: u32, signs: bool) -> Result<One, CaError> {
        let pem = read(&self.certificate(number))?;
        let chain = tls::chain_from_pem(pem.as_bytes()).map_err(CaError::Certificate)?;
        let [der] = <[_; 1]>::try_from(chain).map_err(|_| CaError::List { path: self.certificate(number) })?;
        let issuer = match signs {
            true => Some(Issuer::from_ca_cert_pem(&pem, load_pair(&self.key(number))?).map_err(CaError::Make)?),
            false => None,
        };
        let cross_pem = if number > 1 { Some(read(&self.cross(number))?) } else { None };
        Ok(One { number, pem, der, cross_pem, issuer })
    }

    fn ensure_first(&self, now: Duration) -> Result<(), CaError> {
        let (cert, key) = (self.certificate(1), self.key(1));
        match (cert.exists(), key.exists()) {
            (true, true) => Ok(()),
            (false, false) => {
                let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(CaError::Make)?;
                self.write(&key, &pair.serialize_pem())?;
                self.write(&cert, &of_authority(1, &self.cluster, &pair, now)?)
            }
            // A start died between the two, or somebody lost the certificate. The same key under the same name
            // verifies everything that was ever issued.
            (false, true) => self.write(&cert, &of_authority(1, &self.cluster, &load_pair(&key)?, now)?),
            (true, false) => Err(CaError::Half { present: cert, missing: key }),
        }
    }

    fn certificate(&self, number: u32) -> PathBuf {
        self.path.join(format!("{}.pem", stem(number)))
    }

    fn key(&self, number: u32) -> PathBuf {
        self.path.join(format!("{}.key", stem(number)))
    }

    fn cross(&self, number: u32) -> PathBuf {
        self.path.join(format!("{}.cross.pem", stem(number)))
    }

    fn list_path(&self) -> PathBuf {
        self.path.join("authorities.json")
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), CaError> {
        durable::replace(path, text.as_bytes()).map_err(|source| CaError::File { path: path.to_owned(), source })
    }
}

/// The beginning of the file names of one authority; the first has the names it always had.
fn stem(number: u32) -> String {
    if number == 1 { "ca".to_owned() } else { format!("ca-{number}") }
}

/// Reads a key, once its file's mode was judged.
fn load_pair(path: &Path) -> Result<KeyPair, CaError> {
    tls::load_key(path).map_err(CaError::Key)?;
    KeyPair::from_pem(&read(path)?).map_err(CaError::Make)
}

fn read(path: &Path) -> Result<String, CaError> {
    let file = |source| CaError::File { path: path.to_owned(), source };
    let bytes = durable::read_bounded(File::open(path).map_err(file)?, MAX_BYTES).map_err(file)?;
    String::from_utf8(bytes).map_err(|_| file(io::ErrorKind::InvalidData.into()))
}
