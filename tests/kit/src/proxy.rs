//! A TCP proxy that misbehaves on demand: cuts, holds bytes back, slows down, leads elsewhere.
//!
//! It knows nothing of what it carries. A test puts it between an agent and its manager.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::id::Uid;
use common::shutdown::{Shutdown, Tasks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

/// Bytes carried at once: small, so that a cut hits the middle of frames.
const CHUNK: usize = 4096;

/// What the proxy does at present.
#[derive(Debug, Clone)]
struct Mood {
    target: SocketAddr,
    /// New connections are closed at once.
    refuse: bool,
    /// Nothing is carried and nothing is closed: the far side looks dead.
    pause: bool,
    /// Every piece is held back this long.
    delay: Duration,
    /// Bytes per second in each direction; 0 is no limit.
    rate: u64,
    /// Connections older than this count are cut.
    cuts: u64,
    /// Every connection is cut by itself, after less than so many bytes; 0 is never.
    fray: u64,
}

/// A running proxy; dropping it cuts everything.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    mood: watch::Sender<Mood>,
    /// Bytes after which everything is cut, once.
    budget: Arc<Mutex<Option<u64>>>,
    frayed: Arc<Frayed>,
    shutdown: Shutdown,
}

/// What became of connections that were cut by themselves.
#[derive(Debug, Default)]
struct Frayed {
    /// Where each of them was cut: bytes carried in both directions.
    places: Mutex<Vec<u64>>,
}

/// Bytes a TLS handshake takes in both directions together, about: cuts in it are worth a share of their own.
const HANDSHAKE: u64 = 5_000;

impl Proxy {
    /// Listens on a free port and carries to `target`.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start(target: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mood = Mood { target, refuse: false, pause: false, delay: Duration::ZERO, rate: 0, cuts: 0, fray: 0 };
        let (sender, receiver) = watch::channel(mood);
        let (budget, shutdown, tasks) = (Arc::default(), Shutdown::new(), Tasks::new());
        let frayed = Arc::<Frayed>::default();
        let carrier = Carrier {
            mood: receiver,
            control: sender.clone(),
            budget: Arc::clone(&budget),
            frayed: Arc::clone(&frayed),
            shutdown: shutdown.clone(),
        };
        let spawner = tasks.clone();
        tasks.spawn("proxy", async move {
            loop {
                tokio::select! {
                    accepted = listener.accept() => if let Ok((near, _)) = accepted {
                        spawner.spawn("proxy-connection", carrier.clone().carry(near));
                    },
                    () = carrier.shutdown.requested() => return,
                }
            }
        });
        Ok(Self { address, mood: sender, budget, frayed, shutdown })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads new connections elsewhere.
    pub fn redirect(&self, target: SocketAddr) {
        self.mood.send_modify(|mood| mood.target = target);
    }

    /// Cuts every connection now.
    pub fn cut(&self) {
        self.mood.send_modify(|mood| mood.cuts += 1);
    }

    /// Cuts every connection once `bytes` more were carried, both directions together; new ones work again.
    pub fn cut_after(&self, bytes: u64) {
        *locked(&self.budget) = Some(bytes);
    }

    /// From now on each new connection is cut by itself at a random byte below `bytes`, a quarter of them within what a
    /// TLS handshake takes. 0 ends it, also for connections that are there.
    pub fn fray(&self, bytes: u64) {
        self.mood.send_modify(|mood| mood.fray = bytes);
    }

    /// After how many bytes each connection that frayed was cut.
    #[must_use]
    pub fn frayed(&self) -> Vec<u64> {
        locked(&self.frayed.places).clone()
    }

    /// Closes new connections at once, and cuts those that are there.
    pub fn refuse(&self) {
        self.mood.send_modify(|mood| {
            mood.refuse = true;
            mood.cuts += 1;
        });
    }

    /// Takes connections again.
    pub fn accept(&self) {
        self.mood.send_modify(|mood| mood.refuse = false);
    }

    /// Carries nothing and closes nothing.
    pub fn pause(&self) {
        self.mood.send_modify(|mood| mood.pause = true);
    }

    /// Carries again.
    pub fn resume(&self) {
        self.mood.send_modify(|mood| mood.pause = false);
    }

    /// Holds every piece back for so long.
    pub fn delay(&self, delay: Duration) {
        self.mood.send_modify(|mood| mood.delay = delay);
    }

    /// Carries at most so many bytes per second in each direction; 0 is no limit.
    pub fn throttle(&self, bytes_per_second: u64) {
        self.mood.send_modify(|mood| mood.rate = bytes_per_second);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shutdown.request();
    }
}

#[derive(Clone)]
struct Carrier {
    mood: watch::Receiver<Mood>,
    control: watch::Sender<Mood>,
    budget: Arc<Mutex<Option<u64>>>,
    frayed: Arc<Frayed>,
    shutdown: Shutdown,
}

/// How far one connection may still go.
#[derive(Clone)]
struct Fray {
    /// Where it is cut.
    at: u64,
    left: Arc<Mutex<u64>>,
}

impl Fray {
    /// Draws the place of a cut below `bytes`.
    fn draw(bytes: u64) -> Self {
        let Uid([a, b, c, d, e, f, g, h, kind, ..]) = Uid::random();
        let bound = if kind < 64 { bytes.min(HANDSHAKE) } else { bytes };
        let at = u64::from_le_bytes([a, b, c, d, e, f, g, h]) % bound.max(1);
        Self { at, left: Arc::new(Mutex::new(at)) }
    }

    /// Takes bytes; answers how many of them may still be carried.
    fn take(&self, bytes: usize) -> usize {
        let mut left = locked(&self.left);
        let allowed = usize::try_from(*left).map_or(bytes, |left| left.min(bytes));
        *left -= allowed as u64;
        allowed
    }
}

impl Carrier {
    async fn carry(mut self, near: TcpStream) {
        let (target, refuse, cuts, fray) = {
            let mood = self.mood.borrow();
            (mood.target, mood.refuse, mood.cuts, mood.fray)
        };
        let fray = (fray > 0).then(|| Fray::draw(fray));
        if refuse {
            return;
        }
        let Ok(far) = TcpStream::connect(target).await else { return };
        // Small frames must not wait for acknowledgements here: the product does not let them either.
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
        let (up, down) = (self.clone(), self.clone());
        tokio::select! {
            // Either direction's end is the end of both: the link has no use for half a connection.
            () = up.pump(near_read, far_write, fray.clone()) => {}
            () = down.pump(far_read, near_write, fray) => {}
            _ = self.mood.wait_for(|mood| mood.cuts != cuts) => {}
            () = self.shutdown.requested() => {}
        }
    }

    async fn pump(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, fray: Option<Fray>) {
        let mut chunk = vec![0; CHUNK];
        loop {
            if self.mood.wait_for(|mood| !mood.pause).await.is_err() {
                return;
            }
            let Ok(read @ 1..) = from.read(&mut chunk).await else { return };
            let (delay, rate) = {
                let mood = self.mood.borrow();
                (mood.delay, mood.rate)
            };
            let slow = match rate {
                0 => Duration::ZERO,
                rate => Duration::from_secs_f64(read as f64 / rate as f64),
            };
            if !(delay + slow).is_zero() {
                sleep(delay + slow).await;
            }
            // What was read before the pause began waits for its end like everything else.
            if self.mood.wait_for(|mood| !mood.pause).await.is_err() {
                return;
            }
            let allowed = self.spend(read);
            // One that was drawn while connections frayed goes on whole when they no longer do.
            let fray = fray.as_ref().filter(|_| self.mood.borrow().fray > 0);
            let carried = fray.map_or(allowed, |fray| fray.take(allowed));
            let Some(bytes) = chunk.get(..carried) else { return };
            if to.write_all(bytes).await.is_err() {
                return;
            }
            if let Some(fray) = fray.filter(|_| carried < allowed) {
                locked(&self.frayed.places).push(fray.at);
                return;
            }
            if allowed < read {
                self.control.send_modify(|mood| mood.cuts += 1);
                return;
            }
        }
    }

    /// Takes from the budget; fewer bytes than asked for means that it is used up.
    fn spend(&self, bytes: usize) -> usize {
        let mut budget = locked(&self.budget);
        let Some(left) = *budget else { return bytes };
        let bytes_wide = bytes as u64;
        if left > bytes_wide {
            *budget = Some(left - bytes_wide);
            return bytes;
        }
        *budget = None;
        // Less than asked for, so that the caller sees the cut even when the budget fits exactly.
        usize::try_from(left).unwrap_or(bytes).min(bytes.saturating_sub(1))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::wait::PATIENCE;

    /// An address that sends back what it gets.
    async fn echo() -> std::io::Result<(SocketAddr, Tasks)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, tasks) = (listener.local_addr()?, Tasks::new());
        let spawner = tasks.clone();
        tasks.spawn("echo", async move {
            while let Ok((socket, _)) = listener.accept().await {
                spawner.spawn("echo-connection", async move {
                    let (mut read, mut write) = socket.into_split();
                    // Its end is the end of the connection.
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        Ok((address, tasks))
    }

    async fn round(socket: &mut TcpStream, byte: u8) -> std::io::Result<u8> {
        socket.write_all(&[byte]).await?;
        socket.read_u8().await
    }

    #[tokio::test]
    async fn bytes_are_carried_until_the_connection_is_cut_and_new_ones_work() -> anyhow::Result<()> {
        let (target, _tasks) = echo().await?;
        let proxy = Proxy::start(target).await?;
        let mut first = TcpStream::connect(proxy.address()).await?;
        assert_eq!(round(&mut first, 7).await?, 7);
        proxy.cut();
        assert!(timeout(PATIENCE, first.read_u8()).await?.is_err());
        let mut second = TcpStream::connect(proxy.address()).await?;
        assert_eq!(round(&mut second, 8).await?, 8);
        proxy.cut_after(3);
        let mut seen = 0;
        while timeout(PATIENCE, round(&mut second, 9)).await?.is_ok() {
            seen += 1;
        }
        assert_eq!(seen, 1, "one byte up and one back, the third is the last and goes nowhere");
        Ok(())
    }

    #[tokio::test]
    async fn each_connection_frays_at_a_byte_of_its_own_until_that_is_ended() -> anyhow::Result<()> {
        let (target, _tasks) = echo().await?;
        let proxy = Proxy::start(target).await?;
        proxy.fray(40);
        for count in 1..=20 {
            let mut socket = TcpStream::connect(proxy.address()).await?;
            let mut carried = 0;
            while timeout(PATIENCE, round(&mut socket, 1)).await?.is_ok() {
                carried += 2;
            }
            let places = proxy.frayed();
            let last = places.last().copied().unwrap_or(u64::MAX);
            assert!(places.len() == count && last / 2 * 2 == carried && last < 40, "{carried} of {places:?}");
        }
        proxy.fray(0);
        let mut whole = TcpStream::connect(proxy.address()).await?;
        for _ in 0..60 {
            assert_eq!(round(&mut whole, 3).await?, 3);
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_pause_holds_bytes_back_and_loses_none() -> anyhow::Result<()> {
        let (target, _tasks) = echo().await?;
        let proxy = Proxy::start(target).await?;
        let mut socket = TcpStream::connect(proxy.address()).await?;
        assert_eq!(round(&mut socket, 1).await?, 1);
        proxy.pause();
        socket.write_all(&[2]).await?;
        assert!(timeout(Duration::from_millis(50), socket.read_u8()).await.is_err());
        proxy.resume();
        assert_eq!(timeout(PATIENCE, socket.read_u8()).await??, 2);
        proxy.refuse();
        let mut refused = TcpStream::connect(proxy.address()).await?;
        assert!(timeout(PATIENCE, refused.read_u8()).await?.is_err());
        Ok(())
    }
}
