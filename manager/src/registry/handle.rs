//! The handle of one session: how everybody else speaks to the task that owns the connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::limits::ORDERS;
use common::handshake::Refusal;
use common::id::{Epoch, Generation, Uid};
use common::wire::bye::Code;
use store::types::Due;
use tokio::sync::{mpsc, oneshot, watch};

/// Why a session is to end, said from outside: the last word to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing(Refusal);

impl Closing {
    /// Another session of the same agent took over.
    #[must_use]
    pub fn superseded() -> Self {
        Self(Refusal::new(Code::Superseded, "a newer session of this agent took over"))
    }

    /// Nobody of this name is served.
    #[must_use]
    pub fn banned(reason: &str) -> Self {
        Self(Refusal::new(Code::Banned, reason))
    }

    /// What the peer showed is worth nothing any more.
    #[must_use]
    pub fn untrusted(reason: &str) -> Self {
        Self(Refusal::new(Code::AuthFailed, reason))
    }

    /// The manager stops, or starts a new life of its store.
    #[must_use]
    pub fn draining(reason: &str, retry_after: Duration) -> Self {
        Self(Refusal::new(Code::Draining, reason).retry_after(retry_after))
    }

    /// What is sent.
    #[must_use]
    pub fn refusal(&self) -> &Refusal {
        &self.0
    }
}

/// What a session is asked to do. Private to the registry and the session.
#[derive(Debug)]
pub enum Order {
    /// Send a command or the wish to cancel one.
    Deliver(Due),
    /// Ping the agent and answer when exactly this ping was answered.
    ProveAlive(oneshot::Sender<()>),
}

/// Speaks to a session.
#[derive(Debug, Clone)]
pub struct SessionHandle {
    inner: Arc<Inner>,
}

/// Who opened a session.
#[derive(Debug, Clone)]
pub struct Bearer {
    /// Which bearer of the name.
    pub generation: Generation,
    /// Which state directory.
    pub journal: Uid,
    /// Which boot of the host.
    pub boot_id: String,
    /// Where it comes from.
    pub address: String,
    /// SHA-256 over the public key that it showed.
    pub spki: [u8; 32],
    /// The hash of the authorities that it trusts, where it told it.
    pub trusts: Option<[u8; 32]>,
}

#[derive(Debug)]
struct Inner {
    epoch: Epoch,
    bearer: Bearer,
    orders: mpsc::Sender<Order>,
    closing: watch::Sender<Option<Closing>>,
    reconciled: AtomicBool,
    starved: AtomicBool,
}

/// Places in the queue of a session, free again when they are dropped. Whoever records something as sent has the places
/// for it first.
#[derive(Debug)]
pub struct Places {
    places: Vec<mpsc::OwnedPermit<Order>>,
    handle: SessionHandle,
}

impl Places {
    /// Counts them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Tells whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Hands orders over; `false` when the session is over or has no place for one.
    #[must_use]
    pub fn deliver(self, orders: Vec<Due>) -> bool {
        let mut places = self.places.into_iter();
        for due in orders {
            if self.handle.fenced() {
                return false;
            }
            let Some(place) = places.next() else { return false };
            place.send(Order::Deliver(due));
        }
        true
    }
}

/// The session's end of the handle.
#[derive(Debug)]
pub struct Orders {
    /// What is asked.
    pub orders: mpsc::Receiver<Order>,
    /// The last word, when there is one.
    pub closing: Watcher,
}

/// Hears the last word.
#[derive(Debug, Clone)]
pub struct Watcher(watch::Receiver<Option<Closing>>);

impl Watcher {
    /// The last word, if it was said: frames of the peer no longer count then.
    #[must_use]
    pub fn said(&self) -> Option<Closing> {
        self.0.borrow().clone()
    }

    /// Tells cheaply whether the last word was said.
    #[must_use]
    pub fn fenced(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Waits for the last word; for ever when there never is one.
    ///
    /// # Cancel safety
    /// Safe: the word stays.
    pub async fn heard(&mut self) -> Closing {
        match self.0.wait_for(Option::is_some).await.map(|word| word.clone()) {
            Ok(Some(word)) => word,
            // The handle is gone, so nobody can say anything any more.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }
}

impl SessionHandle {
    /// Makes the handle of a session that is about to begin, and the session's end of it.
    #[must_use]
    pub fn new(epoch: Epoch, bearer: Bearer) -> (Self, Orders) {
        let (orders, taken) = mpsc::channel(ORDERS);
        let (closing, heard) = watch::channel(None);
        let (reconciled, starved) = (AtomicBool::new(false), AtomicBool::new(false));
        let inner = Inner { epoch, bearer, orders, closing, reconciled, starved };
        (Self { inner: Arc::new(inner) }, Orders { orders: taken, closing: Watcher(heard) })
    }

    /// Which session of the agent it is.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.inner.epoch
    }

    /// Which bearer of the name.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.inner.bearer.generation
    }

    /// Which state directory.
    #[must_use]
    pub fn journal(&self) -> Uid {
        self.inner.bearer.journal
    }

    /// Which key it showed: SHA-256 over the public one.
    #[must_use]
    pub fn spki(&self) -> [u8; 32] {
        self.inner.bearer.spki
    }

    /// Tells whether the agent said that it trusts the authorities of this hash.
    #[must_use]
    pub fn trusts(&self, bundle: &[u8; 32]) -> bool {
        self.inner.bearer.trusts.as_ref() == Some(bundle)
    }

    /// Where it comes from.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.inner.bearer.address
    }

    /// Tells whether another connection comes from the same life of the same host: then it is a reconnect.
    #[must_use]
    pub fn same_life(&self, journal: Uid, boot_id: &str) -> bool {
        self.inner.bearer.journal == journal && self.inner.bearer.boot_id == boot_id
    }

    /// Tells whether the inventory was settled: commands may be sent, and not before (protocol R-INV-2).
    #[must_use]
    pub fn reconciled(&self) -> bool {
        self.inner.reconciled.load(Ordering::Acquire)
    }

    /// Records that the inventory was settled.
    pub fn set_reconciled(&self) {
        self.inner.reconciled.store(true, Ordering::Release);
    }

    /// Says the last word, unless another was said before. From now on the session is fenced.
    pub fn close(&self, word: &Closing) {
        self.inner.closing.send_if_modified(|said| {
            let first = said.is_none();
            if first {
                *said = Some(word.clone());
            }
            first
        });
    }

    /// Tells whether the last word was said.
    #[must_use]
    pub fn fenced(&self) -> bool {
        self.inner.closing.borrow().is_some()
    }

    /// Takes places for at most `wanted` orders; none when the session is over or full. One place is always left for a
    /// proof of life. Nothing waits for a slow peer.
    #[must_use]
    pub fn reserve(&self, wanted: usize) -> Places {
        let room = if self.fenced() { 0 } else { self.inner.orders.capacity().saturating_sub(1) };
        let places = (0..room.min(wanted)).map_while(|_| self.inner.orders.clone().try_reserve_owned().ok());
        Places { places: places.collect(), handle: self.clone() }
    }

    /// Records that the fanout found no room: the session wakes it when there is some again.
    pub fn set_starved(&self) {
        self.inner.starved.store(true, Ordering::Release);
    }

    /// Takes the record that the fanout found no room.
    #[must_use]
    pub fn take_starved(&self) -> bool {
        self.inner.starved.swap(false, Ordering::AcqRel)
    }

    /// Asks whether the peer is really there; `false` when it did not answer in time.
    pub async fn proves_alive(&self, within: Duration) -> bool {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            let sent = self.inner.orders.send(Order::ProveAlive(answer)).await.is_ok();
            sent && answered.await.is_ok()
        };
        tokio::time::timeout(within, asked).await.unwrap_or(false)
    }
}
