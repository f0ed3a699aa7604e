//! What is counted, and its rendering for Prometheus. Atomics only: counting never waits.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use store::types::Millis;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Reads it.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The last run of a piece of background work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastRun {
    /// Which work.
    pub name: &'static str,
    /// When it ended.
    pub at: Millis,
    /// How long it took.
    pub took: Duration,
    /// What it did, in words.
    pub did: String,
    /// Why it failed, with all causes.
    pub error: Option<String>,
}

/// Everything that is counted.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Commands taken from operators.
    pub submitted: Counter,
    /// Requests of operators that were refused by the service.
    pub refused: Counter,
    /// Command frames sent to agents.
    pub sent: Counter,
    /// Cancel frames sent to agents.
    pub cancels_sent: Counter,
    /// Results taken from agents.
    pub results: Counter,
    /// Output bytes taken from agents.
    pub output_bytes: Counter,
    /// Sessions that were opened.
    pub sessions: Counter,
    /// Sessions that broke the protocol.
    pub violations: Counter,
    /// Connections that never became a session.
    pub strangers: Counter,
    /// Connections that were closed to make room for others before they said who they are.
    pub evicted: Counter,
    /// Hosts that joined, repeats after a lost answer included.
    pub joins: Counter,
    /// Certificates of agents that were renewed or recovered.
    pub renewals: Counter,
    /// Requests that the HTTP door answered.
    pub http_requests: Counter,
    /// Requests without a valid credential.
    pub http_unauthenticated: Counter,
    background: Mutex<BTreeMap<&'static str, LastRun>>,
}

impl Metrics {
    /// Records the end of a run.
    pub fn ran(&self, run: LastRun) {
        self.background.lock().unwrap_or_else(PoisonError::into_inner).insert(run.name, run);
    }

    /// The last run of each piece of background work.
    #[must_use]
    pub fn background(&self) -> Vec<LastRun> {
        self.background.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Renders everything, with gauges that were read a moment ago, in the text format of Prometheus.
    #[must_use]
    pub fn render(&self, gauges: &[(&'static str, &'static str, u64)]) -> String {
        let counters = [
            ("paprika_commands_submitted_total", "Commands taken from operators.", &self.submitted),
            ("paprika_requests_refused_total", "Requests refused by the service.", &self.refused),
            ("paprika_commands_sent_total", "Command frames sent to agents.", &self.sent),
            ("paprika_cancels_sent_total", "Cancel frames sent to agents.", &self.cancels_sent),
            ("paprika_results_total", "Results taken from agents.", &self.results),
            ("paprika_output_bytes_total", "Output bytes taken from agents.", &self.output_bytes),
            ("paprika_sessions_total", "Sessions opened.", &self.sessions),
            ("paprika_protocol_violations_total", "Sessions that broke the protocol.", &self.violations),
            ("paprika_strangers_total", "Connections on the agent port that never became a session.", &self.strangers),
            ("paprika_evicted_total", "Unauthenticated connections closed to make room.", &self.evicted),
            ("paprika_joins_total", "Hosts that joined with a token.", &self.joins),
            ("paprika_renewals_total", "Certificates of agents that were renewed or recovered.", &self.renewals),
            ("paprika_http_requests_total", "HTTP requests answered.", &self.http_requests),
            (
                "paprika_http_unauthenticated_total",
                "HTTP requests without a valid credential.",
                &self.http_unauthenticated,
            ),
        ];
        let mut text = String::with_capacity(4096);
        for (name, help, value) in gauges {
            sample(&mut text, name, help, "gauge", *value);
        }
        for (name, help, counter) in counters {
            sample(&mut text, name, help, "counter", counter.get());
        }
        let runs = self.background();
        if !runs.is_empty() {
            text.push_str(
                "# HELP paprika_background_failed 1 when the last run of a piece of background work failed.\n",
            );
            text.push_str("# TYPE paprika_background_failed gauge\n");
        }
        for run in runs {
            let failed = u8::from(run.error.is_some());
            // Writing to a String cannot fail.
            let _ = writeln!(text, "paprika_background_failed{{work=\"{}\"}} {failed}", run.name);
        }
        text
    }
}

fn sample(text: &mut String, name: &str, help: &str, kind: &str, value: u64) {
    // Writing to a String cannot fail.
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_has_its_help_and_type() {
        let metrics = Metrics::default();
        metrics.submitted.add(3);
        metrics.ran(LastRun {
            name: "expiry",
            at: 1,
            took: Duration::ZERO,
            did: String::new(),
            error: Some("x".to_owned()),
        });
        let text = metrics.render(&[("paprika_ready", "Ready.", 1)]);
        assert!(text.contains("\npaprika_commands_submitted_total 3\n"));
        assert!(text.contains("\npaprika_background_failed{work=\"expiry\"} 1\n"));
        let samples = text.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(text.matches("# TYPE ").count(), samples);
    }
}
