//! The door for this host: a Unix socket with mode 0600. The kernel says who is at the other end.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tracing::{info, warn};

use super::connection::{self, Connections};
use super::gate::Door;
use super::places::Places;
use super::server::{AcceptPauses, FullHouse};
use super::stall::Unstalled;

/// For the one line that a refused peer is told.
const REFUSAL: Duration = Duration::from_secs(1);

/// A bound socket; its file goes with it.
pub(super) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Makes the socket under another name first: under its own it never exists with more than its mode allows.
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let building = PathBuf::from(name);
        match fs::remove_file(&building) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&building)?;
        fs::set_permissions(&building, fs::Permissions::from_mode(0o600))?;
        // One manager holds the lock of its folder, so a socket that is there already is a dead one's.
        fs::rename(&building, path)?;
        Ok(Self { listener, path: path.to_owned() })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Nobody is left to tell; the next manager replaces it.
        let _ = fs::remove_file(&self.path);
    }
}

/// Accepts until the manager stops.
pub(super) async fn accept(socket: Socket, places: Places, connections: Connections) {
    let ours = rustix::process::geteuid().as_raw();
    let mut pauses = AcceptPauses::default();
    let mut full = FullHouse::default();
    loop {
        let accepted = tokio::select! {
            accepted = socket.listener.accept() => accepted,
            () = connections.shutdown.requested() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                pauses.reset();
                let Some(place) = places.local() else {
                    full.refused();
                    continue;
                };
                let served = connections.clone();
                connections.tasks.spawn("http local connection", async move {
                    serve(stream, ours, served).await;
                    drop(place);
                });
            }
            Err(error) => pauses.after(&error).await,
        }
    }
    info!("The API socket takes no new connections");
}

async fn serve(mut stream: UnixStream, ours: u32, connections: Connections) {
    match stream.peer_cred().map(|peer| peer.uid()) {
        Ok(uid) if is_admin(uid, ours) => {
            connection::serve(Unstalled::new(stream), Door::Local { uid }, connections).await
        }
        Ok(uid) => {
            warn!(peer.uid = uid, "A user without rights connected to the API socket");
            let line = "only root and the manager's own user may use this socket";
            let _ = timeout(REFUSAL, connection::refuse(&mut stream, "403 Forbidden", line)).await;
        }
        Err(error) => warn!(error = %error, "The kernel did not say who connected to the API socket"),
    }
}

/// Root may do everything on this host anyway, and so may the manager's own user with the manager's files.
fn is_admin(uid: u32, ours: u32) -> bool {
    uid == 0 || uid == ours
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn root_and_our_own_user_are_admin_and_nobody_else() {
        assert!(is_admin(0, 1000) && is_admin(1000, 1000));
        assert!(!is_admin(1001, 1000) && !is_admin(65534, 0));
    }

    #[tokio::test]
    async fn the_socket_is_private_replaces_a_dead_one_and_goes_with_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        fs::write(&path, "left behind").unwrap();
        fs::write(folder.path().join("api.sock.new"), "left behind").unwrap();
        let socket = Socket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        UnixStream::connect(&path).await.unwrap();
        drop(socket);
        assert!(!path.exists());
    }
}
