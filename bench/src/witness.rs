//! What this program does when it is itself the command: says when it began to run, or writes a flood and how long that
//! took. Chosen before anything else starts, so that the clock is read at the first instruction of `main`.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;

use crate::house::pause;

/// Says when it began: nanoseconds of the host's clock.
pub const STAMP: &str = "stamp";
/// Writes bytes: `pour COUNT [GO REPORT]`.
pub const POUR: &str = "pour";
/// How long a pour waits for its sign before it gives up.
const SIGN: Duration = Duration::from_secs(60);
/// Bytes of one write: what a pipe holds.
const BLOCK: usize = 64 * 1024;

/// Plays the part that the words ask for; `None` when they ask for the benchmark.
pub fn play(words: &[String]) -> Option<anyhow::Result<()>> {
    let now = now_ns();
    match words.split_first()? {
        (role, []) if role == STAMP => Some(now.and_then(say)),
        (role, rest) if role == POUR => Some(pour(rest)),
        _ => None,
    }
}

/// The host's clock in nanoseconds: the one clock that two processes read alike.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing waits by it, and milliseconds are too coarse for what it measures"
)]
pub fn now_ns() -> anyhow::Result<u128> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())
}

/// The words that run this program in a part.
pub fn words(part: &[&str]) -> anyhow::Result<Vec<String>> {
    let own = std::env::current_exe()?.into_os_string();
    let own = own.into_string().ok().context("the path of this program is not text")?;
    Ok(std::iter::once(own).chain(part.iter().map(|word| (*word).to_owned())).collect())
}

fn say(now: u128) -> anyhow::Result<()> {
    Ok(writeln!(io::stdout(), "{now}")?)
}

/// Writes zeros to standard output; with a sign and a report it begins when the file `GO` is there, and leaves in the
/// file `REPORT` how many nanoseconds the writing took.
fn pour(words: &[String]) -> anyhow::Result<()> {
    let count: u64 = words.first().context("how many bytes?")?.parse()?;
    let files = words.get(1).zip(words.get(2));
    if let Some((go, _)) = files {
        let waiting = Instant::now();
        while !Path::new(go).exists() {
            anyhow::ensure!(waiting.elapsed() < SIGN, "no sign to begin within {SIGN:?}");
            pause(Duration::from_millis(1));
        }
    }
    let block = vec![0_u8; BLOCK];
    let (mut out, mut left) = (io::stdout().lock(), count);
    let start = Instant::now();
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
        out.write_all(block.get(..part).unwrap_or(&block))?;
        left -= part as u64;
    }
    out.flush()?;
    if let Some((_, report)) = files {
        fs::write(report, start.elapsed().as_nanos().to_string())?;
    }
    Ok(())
}
