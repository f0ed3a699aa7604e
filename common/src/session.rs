//! Which frames may come from whom in which stage: one table for both sides. No I/O.
//!
//! ```text
//!   Hello ──(ClientHello up, ServerHello down)──► Open ──(Bye either way)──► closed
//! ```
//! Every received frame is judged here before anything else looks at it (protocol R-SESSION-1).

use crate::wire::frame::Body;
use crate::wire::renew::What;
use crate::wire::{Frame, Renew};

/// Who sent a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The agent.
    Agent,
    /// The manager.
    Manager,
}

/// How far the session has come for the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The other side's hello is awaited.
    Hello,
    /// Hellos were exchanged.
    Open,
}

/// What to do with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// It has its place: act on it.
    Process,
    /// Its body is unknown to this build and its sender does not mind.
    Skip,
    /// Its body is unknown to this build: answer `Nak{UNSUPPORTED}`; the session goes on (protocol R-FRAME-5).
    Unsupported,
    /// It has no place here: `Bye{PROTOCOL_ERROR}` with this reason, and close.
    Violation(&'static str),
}

/// Judges a frame that `sender` sent in `stage`.
#[must_use]
pub fn judge(sender: Side, stage: Stage, frame: &Frame) -> Judgement {
    let Some(body) = &frame.body else {
        return match (stage, frame.may_ignore) {
            (Stage::Hello, _) => Judgement::Violation("the first frame is not a hello"),
            (Stage::Open, true) => Judgement::Skip,
            (Stage::Open, false) => Judgement::Unsupported,
        };
    };
    let (may_send, may_open) = rights(body);
    if !may_send.contains(&sender) {
        return Judgement::Violation("this side may not send such a frame");
    }
    let fits = match (body, stage) {
        (Body::Bye(_), _) => true,
        (_, Stage::Hello) => may_open,
        (_, Stage::Open) => !may_open,
    };
    if fits { Judgement::Process } else { Judgement::Violation("this frame has no place in this stage of the session") }
}

/// Who may send a body, and whether it is the one that opens a session.
fn rights(body: &Body) -> (&'static [Side], bool) {
    const AGENT: &[Side] = &[Side::Agent];
    const MANAGER: &[Side] = &[Side::Manager];
    const BOTH: &[Side] = &[Side::Agent, Side::Manager];
    match body {
        Body::Renew(renew) => (renew_senders(renew), false),
        Body::ClientHello(_) => (AGENT, true),
        Body::ServerHello(_) => (MANAGER, true),
        Body::Bye(_) | Body::Ping(_) | Body::Pong(_) | Body::Ack(_) | Body::Nak(_) => (BOTH, false),
        Body::Command(_)
        | Body::CommandCancel(_)
        | Body::CommandPause(_)
        | Body::OutputCredit(_)
        | Body::ResultAck(_)
        | Body::Reconcile(_) => (MANAGER, false),
        Body::CommandAck(_)
        | Body::CommandProgress(_)
        | Body::CommandOutput(_)
        | Body::CommandResult(_)
        | Body::Inventory(_) => (AGENT, false),
    }
}

/// Each form of Renew has one sender; an empty one may be what a newer peer said, and is answered by a Nak
/// (protocol R-RENEW-1).
fn renew_senders(renew: &Renew) -> &'static [Side] {
    match renew.what {
        Some(What::Csr(_)) => &[Side::Agent],
        Some(What::Issued(_) | What::Due(_)) => &[Side::Manager],
        None => &[Side::Agent, Side::Manager],
    }
}

/// The name of a body in logs and tables.
#[must_use]
pub fn name(body: &Body) -> &'static str {
    match body {
        Body::ClientHello(_) => "ClientHello",
        Body::ServerHello(_) => "ServerHello",
        Body::Bye(_) => "Bye",
        Body::Ping(_) => "Ping",
        Body::Pong(_) => "Pong",
        Body::Ack(_) => "Ack",
        Body::Nak(_) => "Nak",
        Body::Command(_) => "Command",
        Body::CommandAck(_) => "CommandAck",
        Body::CommandCancel(_) => "CommandCancel",
        Body::CommandPause(_) => "CommandPause",
        Body::CommandProgress(_) => "CommandProgress",
        Body::CommandOutput(_) => "CommandOutput",
        Body::OutputCredit(_) => "OutputCredit",
        Body::CommandResult(_) => "CommandResult",
        Body::ResultAck(_) => "ResultAck",
        Body::Inventory(_) => "Inventory",
        Body::Reconcile(_) => "Reconcile",
        Body::Renew(_) => "Renew",
    }
}

/// One empty body of every kind: for tests that must cover them all.
#[must_use]
pub fn one_of_each() -> Vec<Body> {
    vec![
        Body::ClientHello(Default::default()),
        Body::ServerHello(Default::default()),
        Body::Bye(Default::default()),
        Body::Ping(Default::default()),
        Body::Pong(Default::default()),
        Body::Ack(Default::default()),
        Body::Nak(Default::default()),
        Body::Command(Default::default()),
        Body::CommandAck(Default::default()),
        Body::CommandCancel(Default::default()),
        Body::CommandPause(Default::default()),
        Body::CommandProgress(Default::default()),
        Body::CommandOutput(Default::default()),
        Body::OutputCredit(Default::default()),
        Body::CommandResult(Default::default()),
        Body::ResultAck(Default::default()),
        Body::Inventory(Default::default()),
        Body::Reconcile(Default::default()),
        Body::Renew(Default::default()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each side may say once the hellos are exchanged, written down a second time.
    const AGENT_SAYS: [&str; 11] = [
        "Ping",
        "Pong",
        "Ack",
        "Nak",
        "CommandAck",
        "CommandProgress",
        "CommandOutput",
        "CommandResult",
        "Inventory",
        "Bye",
        "Renew",
    ];
    const MANAGER_SAYS: [&str; 12] = [
        "Ping",
        "Pong",
        "Ack",
        "Nak",
        "Command",
        "CommandCancel",
        "CommandPause",
        "OutputCredit",
        "ResultAck",
        "Reconcile",
        "Bye",
        "Renew",
    ];

    /// Sessions of both sides in random order: only what stands in the list has an effect, and only in its stage.
    #[test]
    fn a_million_steps_have_an_effect_only_where_the_list_allows_it() {
        let bodies = one_of_each();
        let mut dice = 0x9e37_79b9_7f4a_7c15_u64;
        let mut roll = |below: usize| {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            (dice % below as u64) as usize
        };
        let (mut stage, mut allowed) = (Stage::Hello, 0_u32);
        for _ in 0..1_000_000 {
            let side = if roll(2) == 0 { Side::Agent } else { Side::Manager };
            let body = bodies[roll(bodies.len())].clone();
            let what = name(&body);
            let (hello, says): (&str, &[&str]) = match side {
                Side::Agent => ("ClientHello", &AGENT_SAYS),
                Side::Manager => ("ServerHello", &MANAGER_SAYS),
            };
            let expected = match stage {
                Stage::Hello => what == hello || what == "Bye",
                Stage::Open => says.contains(&what),
            };
            let frame = Frame { seq: 1, body: Some(body), ..Frame::default() };
            let judged = judge(side, stage, &frame);
            assert_eq!(judged == Judgement::Process, expected, "{what} of {side:?} in {stage:?}: {judged:?}");
            // A violation or a goodbye ends a session, a hello opens it.
            stage = match (expected, what) {
                (true, "ClientHello" | "ServerHello") => Stage::Open,
                (false, _) | (true, "Bye") => Stage::Hello,
                (true, _) => stage,
            };
            allowed += u32::from(expected);
        }
        assert!(allowed > 50_000, "{allowed}");
    }

    /// Protocol R-SESSION-1.
    #[test]
    fn the_whole_table_of_frames_stands_as_written() {
        let mut table = String::new();
        let renew = |what| Body::Renew(Renew { what: Some(what) });
        let forms = [
            ("Renew/csr", renew(What::Csr(Default::default()))),
            ("Renew/issued", renew(What::Issued(Default::default()))),
            ("Renew/due", renew(What::Due(Default::default()))),
        ];
        for (name, body) in one_of_each().into_iter().map(|body| (name(&body), body)).chain(forms) {
            let frame = Frame { body: Some(body), ..Frame::default() };
            table.push_str(&format!("{name:<16}"));
            for sender in [Side::Agent, Side::Manager] {
                for stage in [Stage::Hello, Stage::Open] {
                    let mark = match judge(sender, stage, &frame) {
                        Judgement::Process => "process",
                        Judgement::Violation(_) => "-",
                        Judgement::Skip | Judgement::Unsupported => "?",
                    };
                    table.push_str(&format!(" {:<20}", format!("{sender:?}/{stage:?}:{mark}")));
                }
            }
            table.truncate(table.trim_end().len());
            table.push('\n');
        }
        insta::assert_snapshot!(table);
    }

    /// Protocol R-FRAME-5.
    #[test]
    fn an_unknown_body_is_skipped_or_refused_as_its_sender_wished() {
        let ignorable = Frame { may_ignore: true, ..Frame::default() };
        assert_eq!(judge(Side::Agent, Stage::Open, &ignorable), Judgement::Skip);
        assert_eq!(judge(Side::Agent, Stage::Open, &Frame::default()), Judgement::Unsupported);
        assert!(matches!(judge(Side::Agent, Stage::Hello, &ignorable), Judgement::Violation(_)));
    }
}
