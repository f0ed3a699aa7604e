//! Numbers out of measurements: percentiles of durations, rates, memory of a process.

use std::fs;
use std::io;
use std::time::Duration;

/// Durations of one kind, sorted.
#[derive(Debug, Clone)]
pub struct Sample(Vec<Duration>);

impl Sample {
    /// Sorts what was measured.
    pub fn new(mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        Self(durations)
    }

    /// The value below which a share of all lies; zero when nothing was measured.
    pub fn at(&self, share: f64) -> Duration {
        let rank = (self.0.len() as f64 * share).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// Half of all are below it.
    pub fn p50(&self) -> Duration {
        self.at(0.50)
    }

    /// 99 of 100 are below it.
    pub fn p99(&self) -> Duration {
        self.at(0.99)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// Shows a duration with three digits.
pub fn millis(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1e3;
    if ms < 10.0 {
        format!("{ms:.2} ms")
    } else if ms < 1000.0 {
        format!("{ms:.1} ms")
    } else {
        format!("{:.2} s", ms / 1e3)
    }
}

/// Shows a duration in whole microseconds.
pub fn micros(duration: Duration) -> String {
    format!("{} µs", duration.as_micros())
}

/// Memory that belongs to a process alone, in bytes.
pub fn private_memory(pid: u32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let kib = |key: &str| -> Option<u64> {
        let line = rollup.lines().find(|line| line.starts_with(key))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    Some((kib("Private_Clean:")? + kib("Private_Dirty:")?) * 1024)
}

/// Anonymous memory of a process (heap and stacks), in bytes.
pub fn anonymous_memory(pid: u32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find(|line| line.starts_with("Anonymous:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// Processor time a process used so far.
pub fn cpu_time(pid: u32) -> Option<Duration> {
    ticks(pid, 11)
}

/// Processor time of the children that a process has waited for so far, with theirs.
pub fn children_time(pid: u32) -> Option<Duration> {
    ticks(pid, 13)
}

/// Two neighbouring counters of `/proc/PID/stat`, of user and of system time.
fn ticks(pid: u32, first: usize) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(first);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    // USER_HZ is 100 on every Linux this runs on.
    Some(Duration::from_millis(ticks * 10))
}

/// The processes whose parent is a process.
pub fn children_of(parent: u32) -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // A process may end between the two looks.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let of = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
        if of == Some(parent) {
            pids.push(pid);
        }
    }
    Ok(pids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_taken_from_the_sorted_sample() {
        let sample = Sample::new((1..=100).rev().map(Duration::from_millis).collect());
        assert_eq!(sample.p50(), Duration::from_millis(50));
        assert_eq!(sample.p99(), Duration::from_millis(99));
        assert_eq!(Sample::new(Vec::new()).p99(), Duration::ZERO);
    }

    #[test]
    fn this_process_has_memory_and_used_time() {
        let pid = std::process::id();
        assert!(private_memory(pid).is_some_and(|bytes| bytes > 100_000));
        assert!(anonymous_memory(pid).is_some());
        assert!(cpu_time(pid).is_some() && children_time(pid).is_some());
    }
}
