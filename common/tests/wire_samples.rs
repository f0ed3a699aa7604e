//! Old bytes must keep decoding: every sample in `tests/data` was written by some version of this code and still means
//! the same. New kinds of frames add a sample; nothing here is ever rewritten (protocol R-FRAME-6).

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use common::frame::{Decoder, encode};
use common::limits::MAX_FRAME;
use common::session;
use common::wire::frame::Body;
use common::wire::*;

/// The frames behind the samples, by file name.
fn samples() -> BTreeMap<&'static str, Frame> {
    let uid = Bytes::from_static(b"0123456789abcdef");
    let frame = |seq, reply_to, body| Frame { seq, reply_to, may_ignore: false, body: Some(body) };
    let issued = Issued { chain_pem: "chain".into(), bundle_pem: "bundle".into(), not_after_ms: 1_800_000_200_000 };
    BTreeMap::from([
        (
            "client_hello",
            frame(
                1,
                0,
                Body::ClientHello(ClientHello {
                    protocol_min: 1,
                    protocol_max: 1,
                    capabilities: vec!["command.run".into()],
                    agent_name: "web1".into(),
                    cluster_id: "c-1".into(),
                    boot_id: "b".into(),
                    journal_id: uid.clone(),
                    incarnation: 3,
                    store_position: 99,
                    cores: 4,
                    memory_bytes: 1 << 33,
                    labels: [("rack".to_owned(), "7".to_owned())].into(),
                    agent_version: "0.1.0".into(),
                    isolation: "cgroup".into(),
                    ..Default::default()
                }),
            ),
        ),
        (
            "client_hello_bundle",
            frame(
                1,
                0,
                Body::ClientHello(ClientHello {
                    protocol_min: 1,
                    protocol_max: 1,
                    capabilities: vec!["renew".into()],
                    agent_name: "web1".into(),
                    cluster_id: "c-1".into(),
                    journal_id: uid.clone(),
                    csr: Bytes::from_static(b"\x30\x03\x02\x01\x00"),
                    bundle_hash: Bytes::from_static(&[9; 32]),
                    ..Default::default()
                }),
            ),
        ),
        (
            "client_hello_join",
            frame(
                1,
                0,
                Body::ClientHello(ClientHello {
                    protocol_min: 1,
                    protocol_max: 1,
                    agent_name: "web2".into(),
                    agent_version: "0.3.0".into(),
                    join: Some(JoinRequest {
                        token_id: "abcdefgh".into(),
                        secret: Bytes::from_static(b"0123456789abcdef0123456789abcdef"),
                    }),
                    csr: Bytes::from_static(b"\x30\x03\x02\x01\x00"),
                    ..Default::default()
                }),
            ),
        ),
        (
            "server_hello",
            frame(
                1,
                1,
                Body::ServerHello(ServerHello {
                    protocol: 1,
                    capabilities: vec![],
                    epoch: 12,
                    incarnation: 3,
                    store_position: 100,
                    heartbeat_ms: 10_000,
                    limits: Some(Limits {
                        max_frame: 1 << 20,
                        max_output_payload: 1 << 15,
                        stream_credit: 1 << 20,
                        session_credit: 8 << 20,
                    }),
                    manager_addresses: vec!["m1:7051".into(), "m2:7051".into()],
                    cluster_id: "c-1".into(),
                    clock_ms: 1_800_000_000_000,
                    ..Default::default()
                }),
            ),
        ),
        (
            "server_hello_issued",
            frame(
                1,
                1,
                Body::ServerHello(ServerHello {
                    protocol: 1,
                    cluster_id: "c-1".into(),
                    clock_ms: 1_800_000_000_000,
                    issued: Some(issued.clone()),
                    bundle_hash: Bytes::from_static(&[9; 32]),
                    ..Default::default()
                }),
            ),
        ),
        (
            "renew_csr",
            frame(
                14,
                0,
                Body::Renew(Renew { what: Some(renew::What::Csr(Bytes::from_static(b"\x30\x03\x02\x01\x00"))) }),
            ),
        ),
        ("renew_issued", frame(15, 14, Body::Renew(Renew { what: Some(renew::What::Issued(issued)) }))),
        (
            "renew_due",
            Frame {
                seq: 16,
                reply_to: 0,
                may_ignore: true,
                body: Some(Body::Renew(Renew { what: Some(renew::What::Due(Bytes::from_static(&[9; 32]))) })),
            },
        ),
        (
            "bye",
            frame(
                9,
                0,
                Body::Bye(Bye { code: bye::Code::Draining.into(), reason: "restart".into(), retry_after_ms: 1500 }),
            ),
        ),
        ("ping", frame(2, 0, Body::Ping(Ping { clock_ms: 1_800_000_000_001, store_position: 101 }))),
        ("pong", frame(2, 2, Body::Pong(Pong { clock_ms: 1_800_000_000_002 }))),
        ("ack", frame(3, 4, Body::Ack(Ack {}))),
        ("nak", frame(3, 5, Body::Nak(Nak { code: nak::Code::NotMine.into(), reason: "another agent's".into() }))),
        (
            "command",
            frame(
                4,
                0,
                Body::Command(Command {
                    uid: uid.clone(),
                    id: 42,
                    operation: "command.run".into(),
                    args: Bytes::from_static(br#"{"run":["uname","-a"]}"#),
                    expires_ms: 1_800_000_100_000,
                    timeout_ms: 30_000,
                    user: "nobody".into(),
                    env: vec![EnvVar { name: "K".into(), value: Bytes::from_static(b"V") }],
                    cwd: "/".into(),
                    stdin: Bytes::from_static(b"text"),
                    has_stdin: true,
                    limits: Some(CommandLimits {
                        memory_max: 1 << 28,
                        memory_high: 1 << 27,
                        cpu_percent: 50,
                        tasks: 64,
                        output: 1 << 28,
                        best_effort: true,
                    }),
                    idempotent: true,
                    generation: 2,
                    job_id: 7,
                    attempt: 1,
                    store_position: 102,
                    created_ms: 1_800_000_000_000,
                    ..Default::default()
                }),
            ),
        ),
        (
            "command_options",
            frame(
                4,
                0,
                Body::Command(Command {
                    uid: uid.clone(),
                    id: 43,
                    operation: "script.run".into(),
                    args: Bytes::from_static(br#"{"content":"id\n","creates":"/x"}"#),
                    expires_ms: 1_800_000_100_000,
                    limits: Some(CommandLimits { output: 512 * 1024, ..Default::default() }),
                    generation: 2,
                    attempt: 1,
                    store_position: 102,
                    created_ms: 1_800_000_000_000,
                    umask: 0o027,
                    has_umask: true,
                    nice: -5,
                    oom_score: -500,
                    keep_strays: true,
                    stop_signal: 2,
                    stop_only_main: true,
                    needs: ["guards", "script", "options", "keep_strays"].map(String::from).into(),
                    grace_ms: 200,
                    has_grace: true,
                    ..Default::default()
                }),
            ),
        ),
        (
            "command_secrets",
            frame(
                4,
                0,
                Body::Command(Command {
                    uid: uid.clone(),
                    id: 44,
                    operation: "command.run".into(),
                    args: Bytes::from_static(br#"{"run":["deploy"]}"#),
                    expires_ms: 1_800_000_100_000,
                    generation: 2,
                    attempt: 1,
                    store_position: 102,
                    created_ms: 1_800_000_000_000,
                    needs: vec!["secrets".into()],
                    // One variable: the order of several is nobody's promise.
                    secrets: Some(Secrets {
                        env: [("TOKEN".to_owned(), Bytes::from_static(b"hunter2"))].into(),
                        stdin: Bytes::from_static(b"\xff\x00"),
                        has_stdin: true,
                    }),
                    ..Default::default()
                }),
            ),
        ),
        (
            "command_ack",
            frame(
                5,
                4,
                Body::CommandAck(CommandAck {
                    uid: uid.clone(),
                    answer: command_ack::Answer::Duplicate.into(),
                    phase: CommandPhase::Running.into(),
                    deferred_until_ms: 5,
                    code: "no_space".into(),
                    text: "no room".into(),
                }),
            ),
        ),
        (
            "command_cancel",
            frame(
                6,
                0,
                Body::CommandCancel(CommandCancel {
                    uid: uid.clone(),
                    id: 42,
                    by: "admin".into(),
                    reason: "enough".into(),
                    grace_ms: 200,
                    expires_ms: 1_800_000_100_000,
                    generation: 2,
                }),
            ),
        ),
        (
            "command_pause",
            frame(
                6,
                0,
                Body::CommandPause(CommandPause {
                    uid: uid.clone(),
                    id: 42,
                    paused: true,
                    by: "admin".into(),
                    wish: 3,
                    generation: 2,
                }),
            ),
        ),
        (
            "command_waiting",
            frame(
                7,
                0,
                Body::CommandProgress(CommandProgress {
                    uid: uid.clone(),
                    phase: CommandPhase::Waiting.into(),
                    current: 3,
                    total: 17,
                    text: "parallel_limit".into(),
                    at_ms: 9,
                    isolation: String::new(),
                }),
            ),
        ),
        (
            "command_progress",
            frame(
                7,
                0,
                Body::CommandProgress(CommandProgress {
                    uid: uid.clone(),
                    phase: CommandPhase::Stopping.into(),
                    current: 1,
                    total: 3,
                    text: "two left".into(),
                    at_ms: 9,
                    isolation: "cgroup".into(),
                }),
            ),
        ),
        (
            "command_output",
            frame(
                8,
                0,
                Body::CommandOutput(CommandOutput {
                    uid: uid.clone(),
                    stream: Stream::Stderr.into(),
                    offset: 70_000,
                    data: Bytes::from_static(b"\x00\xff\x1b[2J"),
                    end: true,
                    gap: 0,
                }),
            ),
        ),
        (
            "command_output_gap",
            frame(
                8,
                0,
                Body::CommandOutput(CommandOutput {
                    uid: uid.clone(),
                    stream: Stream::Stdout.into(),
                    offset: 10 << 20,
                    data: Bytes::new(),
                    end: false,
                    gap: 123_456_789,
                }),
            ),
        ),
        (
            "output_credit",
            frame(
                9,
                0,
                Body::OutputCredit(OutputCredit {
                    uid: uid.clone(),
                    stream: Stream::Stdout.into(),
                    offset: 2 << 20,
                    session_bytes: 9 << 20,
                }),
            ),
        ),
        (
            "command_result",
            frame(
                10,
                0,
                Body::CommandResult(CommandResult {
                    uid: uid.clone(),
                    id: 42,
                    outcome: Outcome::Failed.into(),
                    changed: true,
                    has_exit_code: true,
                    exit_code: 137,
                    signal: 0,
                    core_dumped: false,
                    oom: false,
                    error_code: "exec".into(),
                    error_text: "ENOENT".into(),
                    started_ms: 1,
                    finished_ms: 2,
                    duration_us: 3,
                    cpu_us: 4,
                    memory_peak: 5,
                    streams: vec![StreamEnd {
                        stream: Stream::Stdout.into(),
                        length: 10,
                        gaps: vec![Gap { offset: 2, length: 3 }],
                        segments: vec![SegmentHash { offset: 0, length: 10, hash: Bytes::from_static(&[7; 32]) }],
                    }],
                    cancelled_by: "admin".into(),
                    cancel_reason: "enough".into(),
                    isolation: "cgroup".into(),
                    flags: vec!["pipe_held".into()],
                    lengths_are_lower_bounds: true,
                    value: Bytes::from_static(b"{}"),
                    ..Default::default()
                }),
            ),
        ),
        (
            "command_result_usage",
            frame(
                10,
                0,
                Body::CommandResult(CommandResult {
                    uid: uid.clone(),
                    id: 43,
                    outcome: Outcome::Succeeded.into(),
                    duration_us: 3,
                    io_read: 4096,
                    io_written: 1 << 33,
                    tasks_peak: 7,
                    flags: ["skipped", "strays_kept"].map(String::from).into(),
                    ..Default::default()
                }),
            ),
        ),
        ("result_ack", frame(11, 10, Body::ResultAck(ResultAck { uid: uid.clone(), store_position: 103 }))),
        (
            "inventory",
            frame(
                12,
                0,
                Body::Inventory(Inventory {
                    items: vec![InventoryItem {
                        uid: uid.clone(),
                        id: 42,
                        phase: CommandPhase::Ended.into(),
                        generation: 2,
                        streams: vec![StreamLength { stream: Stream::Stdout.into(), length: 10 }],
                        tombstone: true,
                        command: Bytes::from_static(b"\x10\x2a"),
                        started_ms: 77,
                    }],
                    last: true,
                }),
            ),
        ),
        (
            "reconcile",
            frame(
                13,
                12,
                Body::Reconcile(Reconcile {
                    items: vec![ReconcileItem {
                        uid,
                        action: reconcile_item::Action::Continue.into(),
                        streams: vec![StreamLength { stream: Stream::Stdout.into(), length: 4 }],
                    }],
                    last: true,
                }),
            ),
        ),
    ])
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(format!("{name}.bin"))
}

#[test]
fn samples_in_the_tree_still_decode_to_what_they_meant() {
    for (name, frame) in samples() {
        let mut bytes = BytesMut::new();
        assert!(encode(&frame, &mut bytes).is_ok(), "{name} fits a frame");
        if std::env::var_os("PAPRIKA_WRITE_SAMPLES").is_some() && !path(name).exists() {
            assert!(fs::write(path(name), &bytes).is_ok());
        }
        let old = fs::read(path(name)).unwrap_or_default();
        assert!(!old.is_empty(), "no sample {name}.bin: PAPRIKA_WRITE_SAMPLES=1 writes missing ones");
        let decoded = Decoder::new(MAX_FRAME).decode(&mut BytesMut::from(&old[..]));
        assert!(matches!(decoded, Ok(Some(ref decoded)) if *decoded == frame), "{name}: {decoded:?}");
        assert_eq!(old, bytes, "{name}: what we write today is what we wrote then");
    }
}

#[test]
fn every_kind_of_frame_has_a_sample() {
    let sampled: Vec<_> =
        samples().into_values().filter_map(|frame| frame.body).map(|body| session::name(&body)).collect();
    for body in session::one_of_each() {
        assert!(sampled.contains(&session::name(&body)), "no sample of {}", session::name(&body));
    }
}

#[test]
fn a_frame_of_a_newer_peer_is_read_as_far_as_it_is_known() {
    // A Ping with an extra field, and a frame whose body has a number this build does not know.
    let mut newer = BytesMut::from(&b"\x00\x00\x00\x0a\x08\x05\x7a\x06\x08\x07\xfa\x01\x01\x21"[..]);
    let frame = Decoder::new(MAX_FRAME).decode(&mut newer);
    assert!(
        matches!(&frame, Ok(Some(frame)) if matches!(&frame.body, Some(Body::Ping(ping)) if ping.clock_ms == 7)),
        "{frame:?}"
    );
    let mut unknown = BytesMut::from(&b"\x00\x00\x00\x09\x08\x05\x18\x01\xa2\x06\x02\x08\x01"[..]);
    let frame = Decoder::new(MAX_FRAME).decode(&mut unknown);
    assert!(matches!(frame, Ok(Some(Frame { seq: 5, may_ignore: true, body: None, .. }))), "{frame:?}");
}
