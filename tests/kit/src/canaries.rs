//! Secrets that are told apart, and the search for them: in files, in every form in which something could have shown
//! them, and in what the process list said while a test ran.
//!
//! All canaries of a test share a mark that stands nowhere else, so that one search finds each of them.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, bail};
use common::id::Uid;

/// How often the process list is looked at: 100 times in a second.
const LOOK: Duration = Duration::from_millis(10);
/// A form that is shorter than this could stand somewhere by accident.
const SHORTEST: usize = 12;

/// A maker of secrets.
#[derive(Debug)]
pub struct Canaries {
    mark: String,
    made: usize,
}

impl Default for Canaries {
    fn default() -> Self {
        let drawn = Uid::random().to_string();
        Self { mark: format!("kanarie{}", drawn.get(..16).unwrap_or_default()), made: 0 }
    }
}

impl Canaries {
    /// Makes the next one: with signs that JSON, URLs and shells write differently.
    pub fn sing(&mut self) -> String {
        self.made += 1;
        format!("{}-{:02}/+ %\"\\ä", self.mark, self.made)
    }

    /// How many were made.
    #[must_use]
    pub fn made(&self) -> usize {
        self.made
    }

    /// What to search for.
    #[must_use]
    pub fn forms(&self) -> Vec<String> {
        forms(self.mark.as_bytes())
    }
}

/// Every form in which bytes can stand in a text: as they are, in base64 at any place of a longer text, in hex, as in a
/// URL, and as numbers.
#[must_use]
pub fn forms(secret: &[u8]) -> Vec<String> {
    let mut found: Vec<String> = String::from_utf8(secret.to_vec()).into_iter().collect();
    for before in 0..3 {
        let text = api::base64::encode(&[vec![0; before].as_slice(), secret].concat());
        // Digits that do not depend on what stands around it.
        let (first, end) = ([0, 2, 3][before], (before + secret.len()) * 8 / 6);
        let inner = text.get(first..end).unwrap_or_default().to_owned();
        found.push(inner.replace('+', "-").replace('/', "_"));
        found.push(inner);
    }
    let (mut lower, mut url, mut numbers) = (String::new(), String::new(), Vec::new());
    for byte in secret {
        // Writing into a String cannot fail.
        let _ = write!(lower, "{byte:02x}");
        let _ = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => write!(url, "{}", char::from(*byte)),
            other => write!(url, "%{other:02X}"),
        };
        numbers.push(byte.to_string());
    }
    found.extend([lower.to_uppercase(), lower, url, numbers.join(", "), numbers.join(",")]);
    found.sort();
    found.dedup();
    found.retain(|form| form.len() >= SHORTEST);
    found
}

/// Every file below a folder that holds one of the texts. Nothing is waited for: FIFOs and sockets are passed over.
///
/// # Errors
/// When the folder cannot be searched.
pub fn files_with(folder: &Path, texts: &[String]) -> anyhow::Result<Vec<PathBuf>> {
    if texts.is_empty() {
        bail!("nothing to search for");
    }
    let list = tempfile::NamedTempFile::new()?;
    fs::write(list.path(), texts.join("\n"))?;
    let found = Command::new("grep")
        .args(["-r", "-l", "-a", "-F", "-D", "skip", "-f"])
        .arg(list.path())
        .arg("--")
        .arg(folder)
        .env("LC_ALL", "C")
        .output()
        .context("run grep")?;
    // 2 is also a file that went away meanwhile; what was found counts.
    if found.status.code().is_none_or(|code| code > 2) {
        bail!("grep ended with {}", found.status);
    }
    Ok(String::from_utf8_lossy(&found.stdout).lines().map(PathBuf::from).collect())
}

/// Looks at the process list until it is asked what it saw.
#[derive(Debug)]
pub struct Watcher {
    stop: SyncSender<()>,
    rounds: Arc<AtomicUsize>,
    thread: JoinHandle<HashSet<Vec<u8>>>,
}

impl Watcher {
    /// Begins to look: at every command line, and at the environment of those processes of whose command line `daemon` says
    /// that nothing may be in it.
    #[must_use]
    pub fn start(daemon: fn(&[u8]) -> bool) -> Self {
        // One word is ever said.
        let (stop, stopped) = sync_channel(1);
        let rounds = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&rounds);
        let thread = std::thread::spawn(move || {
            let mut seen = HashSet::new();
            while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                look(daemon, &mut seen);
                counted.fetch_add(1, Ordering::Relaxed);
            }
            seen
        });
        Self { stop, rounds, thread }
    }

    /// How often it has looked.
    #[must_use]
    pub fn rounds(&self) -> usize {
        self.rounds.load(Ordering::Relaxed)
    }

    /// Ends, and writes what was seen into a file.
    ///
    /// # Errors
    /// When it cannot be written, or nothing was ever seen.
    pub fn write(self, path: &Path) -> anyhow::Result<()> {
        drop(self.stop);
        let Ok(seen) = self.thread.join() else { bail!("the watcher panicked") };
        if seen.is_empty() {
            bail!("the watcher saw no process");
        }
        let lines: Vec<Vec<u8>> = seen.into_iter().collect();
        Ok(fs::write(path, lines.join(&b'\n'))?)
    }
}

fn look(daemon: fn(&[u8]) -> bool, seen: &mut HashSet<Vec<u8>>) {
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let process = entry.path();
        if !entry.file_name().to_string_lossy().bytes().all(|digit| digit.is_ascii_digit()) {
            continue;
        }
        // It may have ended.
        let Ok(line) = fs::read(process.join("cmdline")) else { continue };
        if daemon(&line) {
            seen.extend(fs::read(process.join("environ")));
        }
        seen.insert(line);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_search_finds_every_form_in_every_place() {
        let mut canaries = Canaries::default();
        let secret = canaries.sing();
        let folder = tempfile::tempdir().unwrap();
        let search = || files_with(folder.path(), &canaries.forms()).unwrap().len();
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        let url: String = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let mut written = vec![
            secret.clone().into_bytes(),
            [b"\0\xff", secret.as_bytes(), b"\0"].concat(),
            hex.clone().into_bytes(),
            hex.to_uppercase().into_bytes(),
            serde_json::to_vec(&secret).unwrap(),
            format!("{:?}", secret.as_bytes()).into_bytes(),
            serde_json::to_vec(secret.as_bytes()).unwrap(),
        ];
        for before in ["", "x", "xy", "user:"] {
            written.push(api::base64::encode(format!("{before}{secret} and more").as_bytes()).into_bytes());
        }
        for (number, bytes) in written.iter().enumerate() {
            assert_eq!(search(), number, "before form {number}");
            fs::create_dir_all(folder.path().join(number.to_string())).unwrap();
            fs::write(folder.path().join(number.to_string()).join("file"), bytes).unwrap();
        }
        assert_eq!(search(), written.len());
        // Only what needs no escape stays as it is in a URL; a form with every byte escaped is another.
        assert!(forms(b"a b+c/d e f g").iter().any(|form| form == "a%20b%2Bc%2Fd%20e%20f%20g") && url.contains("%6B"));
    }

    #[test]
    fn the_watcher_sees_command_lines_that_are_short() {
        let folder = tempfile::tempdir().unwrap();
        let watcher = Watcher::start(|_| false);
        let mark = Uid::random().to_string();
        let mut child =
            Command::new("sh").args(["-c", "read -r line", &mark]).stdin(std::process::Stdio::piped()).spawn();
        let path = folder.path().join("seen");
        let began = watcher.rounds();
        while watcher.rounds() < began + 2 {
            std::thread::yield_now();
        }
        drop(child.as_mut().unwrap().stdin.take());
        child.unwrap().wait().unwrap();
        watcher.write(&path).unwrap();
        assert!(!files_with(folder.path(), &[mark]).unwrap().is_empty());
    }
}
