//! What our figures stand beside: the machine's own limits, measured in the same run by the shortest code that does the
//! same kind of work.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use common::tls::{self, TlsAcceptor, TlsConnector};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::house::pause;
use crate::stats::Sample;

/// Starts `true` and waits for it, one after another.
pub fn spawn_true(rounds: usize) -> anyhow::Result<Sample> {
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let start = Instant::now();
        Command::new("/bin/true").stdin(Stdio::null()).status()?;
        times.push(start.elapsed());
    }
    Ok(Sample::new(times))
}

/// Starts `true` and waits for it in so many threads at once; answers how many per second they make together.
pub fn spawn_rate(threads: usize, rounds: usize) -> anyhow::Result<f64> {
    let each = rounds / threads;
    let start = Instant::now();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(|| spawn_true(each))).collect();
        running.into_iter().try_for_each(|thread| match thread.join() {
            Ok(sample) => sample.map(drop),
            Err(_) => anyhow::bail!("a thread of the loop failed"),
        })
    })?;
    Ok((each * threads) as f64 / start.elapsed().as_secs_f64())
}

/// Commits single rows to a SQLite database with full durability; answers rows per second.
pub fn sqlite_commits(folder: &Path, rounds: usize) -> anyhow::Result<f64> {
    let database = rusqlite::Connection::open(folder.join("raw.db"))?;
    database.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT);",
    )?;
    let start = Instant::now();
    for _ in 0..rounds {
        database.execute(
            "INSERT INTO t (text) VALUES (?1)",
            ["a row of about the size of a small command, more or less"],
        )?;
    }
    Ok(rounds as f64 / start.elapsed().as_secs_f64())
}

/// Sends bytes through one bare TLS socket on loopback, with the settings of the agent link; answers bytes per second.
pub async fn bare_tls(bytes: u64) -> anyhow::Result<f64> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = CertificateParams::new([tls::MANAGER_DNS.to_owned()])?.self_signed(&key)?.pem();
    let chain = tls::chain_from_pem(certificate.as_bytes())?;
    let key = || tls::key_from_pem(key.serialize_pem().as_bytes());
    let roots = || tls::roots_from_pem(certificate.as_bytes());
    let acceptor = TlsAcceptor::from(tls::link_server(chain.clone(), key()?, roots()?)?);
    let connector = TlsConnector::from(tls::link_client(chain, key()?, roots()?)?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let sender = async {
        let (socket, _) = listener.accept().await?;
        let mut stream = acceptor.accept(socket).await?;
        let block = vec![0x5a; 64 * 1024];
        let mut left = bytes;
        while left > 0 {
            let part = left.min(block.len() as u64) as usize;
            stream.write_all(block.get(..part).context("a part of the block")?).await?;
            left -= part as u64;
        }
        stream.shutdown().await?;
        anyhow::Ok(())
    };
    let receiver = async {
        let mut stream = connector.connect(tls::manager_name(), TcpStream::connect(address).await?).await?;
        let mut block = vec![0; 64 * 1024];
        let start = Instant::now();
        let mut seen = 0;
        loop {
            let read = stream.read(&mut block).await?;
            if read == 0 {
                break;
            }
            seen += read as u64;
        }
        anyhow::ensure!(seen == bytes, "{seen} of {bytes} bytes arrived");
        Ok(start.elapsed())
    };
    let (sent, took) =
        tokio::try_join!(tokio::time::timeout(Duration::from_secs(120), sender), async { Ok(receiver.await) })?;
    sent?;
    Ok(bytes as f64 / took?.as_secs_f64())
}

/// `true` through an ssh connection that is kept open, against a server of our own on loopback; `None` with the
/// reason printed where the machine has no ssh server.
pub fn kept_ssh(folder: &Path, rounds: usize) -> anyhow::Result<Option<Sample>> {
    let server = Path::new("/usr/sbin/sshd");
    if !server.exists() {
        return Ok(None);
    }
    let path = |name: &str| folder.join(name).display().to_string();
    for name in ["host", "user"] {
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &path(name)]).status()?;
        anyhow::ensure!(made.success(), "ssh-keygen failed");
    }
    std::fs::copy(folder.join("user.pub"), folder.join("authorized"))?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut daemon = Command::new(server)
        .args(["-D", "-f", "/dev/null", "-h", &path("host"), "-p", &port.to_string()])
        .args(["-o", "ListenAddress=127.0.0.1", "-o", "StrictModes=no", "-o", "UsePAM=no", "-o", "PidFile=none"])
        .args(["-o", &format!("AuthorizedKeysFile={}", path("authorized"))])
        .stderr(Stdio::null())
        .spawn()?;
    let client = || {
        let mut command = Command::new("ssh");
        command
            .args(["-F", "/dev/null", "-i", &path("user"), "-p", &port.to_string()])
            .args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes"])
            .args([
                "-o",
                "ControlMaster=auto",
                "-o",
                "ControlPersist=60",
                "-o",
                &format!("ControlPath={}", path("mux")),
            ])
            .arg("127.0.0.1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    };
    let measured = (|| {
        let opened = (0..50).any(|_| {
            pause(Duration::from_millis(100));
            client().arg("true").status().is_ok_and(|status| status.success())
        });
        if !opened {
            return anyhow::Ok(None);
        }
        let mut times = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let start = Instant::now();
            anyhow::ensure!(client().arg("true").status()?.success(), "ssh failed");
            times.push(start.elapsed());
        }
        client().args(["-O", "exit"]).status()?;
        Ok(Some(Sample::new(times)))
    })();
    daemon.kill()?;
    daemon.wait()?;
    measured
}
