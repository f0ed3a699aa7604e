//! What the authority does for the rest of the house: it issues certificates, says what is trusted, and takes the steps
//! of a rotation.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use common::id::{Generation, Name};
use common::pin::Pin;
use common::tls::{Csr, Identity, MANAGER_DNS, Role};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};

use super::certificate::{Span, host, of_leaf};
use super::csr::public_key;
use super::error::CaError;
use super::rotation::{Folder, Set, Trusted};

/// Validity of the manager's own certificates; they are issued anew at every start and now and then.
const MANAGER_VALID: Duration = Duration::from_secs(365 * 24 * 3600);

/// A certificate with its key, PEM.
#[derive(Clone)]
pub struct Issued {
    /// The certificate and what it is signed by.
    pub chain_pem: String,
    /// The private key, which is kept nowhere else.
    pub key_pem: String,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("chain_pem", &self.chain_pem).finish_non_exhaustive()
    }
}

/// Issues certificates. Every method reads or signs something: not for the runtime's threads, where it can be helped.
pub struct Authority {
    cluster: Name,
    folder: Folder,
    now: RwLock<Arc<Set>>,
    /// Held by a step from its first file to its last, so that two never mix.
    stepping: Mutex<()>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let set = self.set();
        f.debug_struct("Authority")
            .field("cluster", &self.cluster)
            .field("active", &set.active().number())
            .field("trusted", &set.numbers())
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// Opens the authority in `<dir>/ca`, or makes it when there is none. `now` is Unix time.
    ///
    /// # Errors
    /// When a file cannot be read or written, or only half of the authority is there.
    pub fn open(dir: &Path, cluster: &Name, now: Duration) -> Result<Self, CaError> {
        let folder = Folder::open(dir, cluster)?;
        let set = folder.load(now)?;
        Ok(Self { cluster: cluster.clone(), folder, now: RwLock::new(Arc::new(set)), stepping: Mutex::new(()) })
    }

    /// Issues the certificate of an agent whose key is made here.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn issue_agent(&self, name: &Name, generation: Generation, valid: Duration) -> Result<Issued, CaError> {
        self.issue_agent_at(name, generation, unix_now(), valid)
    }

    /// The same, valid from (almost) `now` on, which is Unix time.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn issue_agent_at(
        &self,
        name: &Name,
        generation: Generation,
        now: Duration,
        valid: Duration,
    ) -> Result<Issued, CaError> {
        self.with_new_key(|key| self.client(Role::Agent, name, generation, now, valid, key))
    }

    /// Issues the certificate of an agent for a key that never left its host; answers the chain, PEM.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn issue_agent_for(
        &self,
        request: &Csr,
        name: &Name,
        generation: Generation,
        now: Duration,
        valid: Duration,
    ) -> Result<String, CaError> {
        self.client(Role::Agent, name, generation, now, valid, &public_key(request)?)
    }

    /// Issues the certificate of an operator whose key is made here.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn issue_operator(&self, name: &Name, generation: Generation, valid: Duration) -> Result<Issued, CaError> {
        self.with_new_key(|key| self.client(Role::Operator, name, generation, unix_now(), valid, key))
    }

    /// Issues the certificate of an operator for a key that was made elsewhere; answers the chain, PEM.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn issue_operator_for(
        &self,
        request: &Csr,
        name: &Name,
        generation: Generation,
        now: Duration,
        valid: Duration,
    ) -> Result<String, CaError> {
        self.client(Role::Operator, name, generation, now, valid, &public_key(request)?)
    }

    /// Issues the certificate that the manager shows to agents and operators. During a rotation its chain leads to the
    /// earlier authority too.
    ///
    /// # Errors
    /// When it cannot be made, or one of `names` is neither a DNS name nor an address.
    pub fn issue_manager(&self, name: &Name, names: &[String]) -> Result<Issued, CaError> {
        let identity = self.identity(Role::Manager, name, Generation(1));
        let usual = [MANAGER_DNS, "localhost", "127.0.0.1", "::1", name.as_str()].map(str::to_owned);
        let (mut seen, mut sans) = (Vec::new(), Vec::new());
        for name in usual.iter().chain(names) {
            if !seen.contains(&name) {
                seen.push(name);
                sans.push(host(name)?);
            }
        }
        let set = self.set();
        self.with_new_key(|key| {
            let span = Span::of_server(unix_now(), MANAGER_VALID);
            let leaf = of_leaf(&identity, sans, span, key, set.active().issuer()?)?;
            Ok(format!("{}{}", leaf.pem(), set.server_chain()))
        })
    }

    /// The number of the authority that signs.
    #[must_use]
    pub fn active(&self) -> u32 {
        self.set().active().number()
    }

    /// The certificate of the authority that signs, PEM. Whoever is to trust this cluster needs [`Self::bundle_pem`].
    #[must_use]
    pub fn ca_pem(&self) -> String {
        self.set().active().pem().to_owned()
    }

    /// All trusted authorities, by number.
    #[must_use]
    pub fn trusted(&self) -> Vec<Trusted> {
        self.set().trusted()
    }

    /// The certificates of all trusted authorities, PEM.
    #[must_use]
    pub fn bundle_pem(&self) -> String {
        self.set().bundle_pem()
    }

    /// What agents compare their trust with (protocol R-RENEW-5).
    #[must_use]
    pub fn bundle_hash(&self) -> [u8; 32] {
        self.set().bundle_hash()
    }

    /// What join tokens of now are pinned to.
    #[must_use]
    pub fn pin(&self) -> Pin {
        self.set().active().pin()
    }

    /// Makes the next authority: trusted from now on, signing nothing yet. One that was prepared already stays.
    ///
    /// # Errors
    /// When the rotation before is not at its end, or a file cannot be written.
    pub fn prepare(&self, now: Duration) -> Result<u32, CaError> {
        self.step(|folder, set| folder.prepare(set, now))?;
        Ok(self.trusted().last().map_or(1, |newest| newest.number))
    }

    /// Lets the newest authority sign; answers its number. Once more changes nothing.
    ///
    /// # Errors
    /// When none was prepared, or a file cannot be written.
    pub fn activate(&self) -> Result<u32, CaError> {
        self.step(Folder::activate)?;
        Ok(self.active())
    }

    /// Trusts the earlier authority no more, and removes its key. Whoever has only its certificates has to join again.
    ///
    /// # Errors
    /// When there is none, the newest does not sign yet, or a file cannot be written.
    pub fn retire(&self) -> Result<(), CaError> {
        self.step(Folder::retire)
    }

    fn step(&self, take: impl FnOnce(&Folder, &Set) -> Result<Set, CaError>) -> Result<(), CaError> {
        let _held = self.stepping.lock().unwrap_or_else(PoisonError::into_inner);
        let next = take(&self.folder, &self.set())?;
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        Ok(())
    }

    fn set(&self) -> Arc<Set> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn identity(&self, role: Role, name: &Name, generation: Generation) -> Identity {
        Identity { cluster: self.cluster.clone(), role, name: name.clone(), generation }
    }

    /// Signs a client's certificate; answers its chain.
    fn client(
        &self,
        role: Role,
        name: &Name,
        generation: Generation,
        now: Duration,
        valid: Duration,
        key: &impl PublicKeyData,
    ) -> Result<String, CaError> {
        let set = self.set();
        let identity = self.identity(role, name, generation);
        let leaf =
            of_leaf(&identity, Vec::new(), Span::of_client(now, unix_now(), valid), key, set.active().issuer()?)?;
        Ok(format!("{}{}", leaf.pem(), set.active().pem()))
    }

    fn with_new_key(&self, chain: impl FnOnce(&KeyPair) -> Result<String, CaError>) -> Result<Issued, CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(CaError::Make)?;
        Ok(Issued { chain_pem: chain(&key)?, key_pem: key.serialize_pem() })
    }
}

fn unix_now() -> Duration {
    Duration::from_millis(common::clock::unix_ms())
}
