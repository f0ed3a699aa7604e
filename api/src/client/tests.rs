//! What the client does when the manager breaks off: played by a server that answers as the test says.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::VecDeque;
use std::time::Duration;

use common::id::Name;
use common::model::StreamName;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::{Client, ClientError, Endpoint, OutputEvent, RawPiece};
use crate::base64;
use crate::commands::{CancelRequest, CommandRequest, OutputCursor};
use crate::tokens::{Scope, TokenRequest};

/// What the server does with a connection after it read a request.
enum Act {
    /// Answers this and waits for the next request.
    Answer(String),
    /// Answers this and hangs up.
    Last(String),
}

/// A server for one connection after the other; each action is for one request.
struct Server {
    _folder: TempDir,
    client: Client,
    running: tokio::task::JoinSet<Vec<String>>,
}

impl Server {
    fn start(acts: impl IntoIterator<Item = Act>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let limits = Duration::from_secs(10);
        let client = Client::with_limits(Endpoint::unix(path), limits, limits).unwrap();
        let mut running = tokio::task::JoinSet::new();
        running.spawn(serve(listener, acts.into_iter().collect()));
        Self { _folder: folder, client, running }
    }

    /// Every request that was seen, once all actions are done.
    async fn seen(mut self) -> Vec<String> {
        self.running.join_next().await.unwrap().unwrap()
    }
}

async fn serve(listener: UnixListener, mut acts: VecDeque<Act>) -> Vec<String> {
    let mut seen = Vec::new();
    while !acts.is_empty() {
        let (mut stream, _) = listener.accept().await.unwrap();
        while let Some(request) = read_request(&mut stream).await {
            seen.push(request);
            match acts.pop_front() {
                Some(Act::Answer(answer)) => stream.write_all(answer.as_bytes()).await.unwrap(),
                Some(Act::Last(answer)) => {
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    break;
                }
                None => break,
            }
            if acts.is_empty() {
                break;
            }
        }
    }
    seen
}

async fn read_request(stream: &mut UnixStream) -> Option<String> {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |digits| digits.parse().unwrap()) {
                return Some(text);
            }
        }
        if stream.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
    }
}

fn json(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

const COMMAND: &str = r#"{"id":7,"uid":"00000000000000000000000000000001","agent":"a","operation":"agent.ping","args":{},"phase":"succeeded",
    "waiting":null,"job":null,"attempt":1,"created_at":"2026-01-01T00:00:00.000Z","created_by":"x","expires_at":"2026-01-02T00:00:00.000Z",
    "timeout":null,"user":null,"cwd":null,"idempotent":false,"accepted_at":null,"started_at":null,"finished_at":null,"progress":null,
    "changed":true,"exit_code":0,"signal":null,"oom":false,"error":null,"cancel":null,"streams":{},"usage":null,"isolation":null,
    "value":null,"flags":[],"agent_reachable":true,"something_new":{"from":"a later release"}}"#;

fn command() -> String {
    COMMAND.replace('\n', "")
}

fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    request.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn agent() -> Name {
    "a".parse().unwrap()
}

#[tokio::test]
async fn a_start_without_an_answer_is_repeated_with_the_same_key() {
    let server = Server::start([
        Act::Last(String::new()),
        Act::Last("HTTP/1.1 202 Accepted\r\ncontent-length: 5000\r\n\r\n{".to_owned()),
        Act::Last(json("202 Accepted", &command())),
    ]);
    let started = server.client.start(&agent(), &CommandRequest::default()).await.unwrap();
    assert_eq!(started.id, 7);
    let seen = server.seen().await;
    let keys: Vec<_> = seen.iter().map(|request| header(request, "idempotency-key").unwrap()).collect();
    assert_eq!(keys.len(), 3);
    assert!(keys[0].len() == 32 && keys.iter().all(|key| *key == keys[0]));
}

#[tokio::test]
async fn a_cancel_without_an_answer_is_repeated_as_the_same_wish_and_the_next_call_is_another() {
    let answer = format!(r#"{{"answer":"cancel_pending","phase":"running","command":{}}}"#, command());
    let server = Server::start([
        Act::Last(String::new()),
        Act::Answer(json("202 Accepted", &answer)),
        Act::Answer(json("202 Accepted", &answer)),
    ]);
    server.client.cancel(7, &CancelRequest::default()).await.unwrap();
    server.client.cancel(7, &CancelRequest::default()).await.unwrap();
    let seen = server.seen().await;
    let keys: Vec<_> = seen.iter().map(|request| header(request, "idempotency-key").unwrap()).collect();
    assert!(keys.len() == 3 && keys[0] == keys[1] && keys[1] != keys[2], "{keys:?}");
}

#[tokio::test]
async fn a_call_that_must_not_be_repeated_is_not() {
    let server = Server::start([Act::Last(String::new())]);
    let request = TokenRequest { name: "x".to_owned(), scope: Scope::Read, expires_in: None, roles: None };
    assert!(matches!(server.client.create_token(&request).await, Err(ClientError::Lost { .. })));
    assert_eq!(server.seen().await.len(), 1);
}

#[tokio::test]
async fn pause_and_resume_are_wishes_that_may_be_sent_twice() {
    let server = Server::start([
        Act::Last(String::new()),
        Act::Answer(json("202 Accepted", &command())),
        Act::Answer(json("202 Accepted", &command())),
    ]);
    assert_eq!(server.client.pause(7).await.unwrap().id, 7);
    assert_eq!(server.client.resume(7).await.unwrap().id, 7);
    let lines: Vec<String> =
        server.seen().await.iter().filter_map(|request| request.lines().next().map(str::to_owned)).collect();
    assert_eq!(
        lines,
        ["POST /commands/7/pause HTTP/1.1", "POST /commands/7/pause HTTP/1.1", "POST /commands/7/resume HTTP/1.1"]
    );
}

#[tokio::test]
async fn a_refusal_is_repeated_only_when_the_manager_says_it_may_pass() {
    let problem = |retryable| {
        json(
            "503 Service Unavailable",
            &format!(r#"{{"type":"t","title":"t","status":503,"code":"busy","retryable":{retryable}}}"#),
        )
    };
    let server = Server::start([Act::Answer(problem(true)), Act::Answer(problem(false))]);
    let refused = server.client.command(7).await.unwrap_err();
    assert_eq!(refused.problem().map(|problem| problem.code.as_str()), Some("busy"));
    assert_eq!(server.seen().await.len(), 2);
}

#[tokio::test]
async fn one_connection_carries_many_calls_and_an_old_one_is_replaced() {
    let server = Server::start([
        Act::Answer(json("200 OK", &command())),
        Act::Last(json("200 OK", &command())),
        Act::Last(json("200 OK", &command())),
    ]);
    for _ in 0..3 {
        assert_eq!(server.client.command(7).await.unwrap().id, 7);
    }
    assert_eq!(server.seen().await.len(), 3);
}

#[tokio::test]
async fn events_are_resumed_behind_the_last_one() {
    let output = |offset: u64, text: &str| {
        let next = offset + text.len() as u64;
        let data = format!(r#"{{"stream":"stdout","offset":{offset},"b64":"{}"}}"#, base64::encode(text.as_bytes()));
        format!("id: stdout={next}\nevent: output\ndata: {data}\n\n")
    };
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    let server = Server::start([
        Act::Last(format!("{head}: hello\n\n{}{}", output(0, "one"), &output(3, "two")[..20])),
        Act::Last(format!("{head}event: later\ndata: {{}}\n\n{}event: end\ndata: {}\n\n", output(3, "two"), command())),
    ]);
    let mut follower = server.client.follow(7, OutputCursor::default());
    let mut bytes = Vec::new();
    let mut last = None;
    while let Some(event) = follower.next().await.unwrap() {
        if let OutputEvent::Bytes { bytes: more, .. } = &event {
            bytes.extend_from_slice(more);
        }
        last = Some(event);
    }
    assert_eq!(bytes, b"onetwo");
    assert!(matches!(last, Some(OutputEvent::End(command)) if command.id == 7));
    let seen = server.seen().await;
    assert_eq!((header(&seen[0], "last-event-id"), header(&seen[1], "last-event-id")), (None, Some("stdout=3")));
}

#[tokio::test]
async fn bytes_that_do_not_join_are_not_believed() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    let server = Server::start([Act::Last(format!(
        "{head}event: output\ndata: {{\"stream\":\"stdout\",\"offset\":5,\"b64\":\"\"}}\n\n"
    ))]);
    assert!(matches!(
        server.client.follow(7, OutputCursor::default()).next().await,
        Err(ClientError::Malformed { .. })
    ));
}

#[tokio::test]
async fn raw_bytes_go_on_at_the_next_offset_after_a_cut_and_a_gap() {
    let head = "HTTP/1.1 200 OK\r\ntrailer: paprika-next-offset\r\ntransfer-encoding: chunked\r\n\r\n";
    let server = Server::start([
        Act::Last(format!("{head}3\r\nabc\r\n")),
        Act::Answer(format!("{head}2\r\nde\r\n0\r\npaprika-next-offset: 9\r\n\r\n")),
        Act::Last(format!("{head}1\r\nx\r\n0\r\n\r\n")),
    ]);
    let mut raw = server.client.raw_output(7, StreamName::Stdout, 0, true);
    let mut pieces = Vec::new();
    while let Some(piece) = raw.next().await.unwrap() {
        pieces.push(piece);
    }
    let bytes = |text: &'static str| RawPiece::Bytes(text.into());
    assert_eq!(pieces, [bytes("abc"), bytes("de"), RawPiece::Gap { offset: 5, length: 4 }, bytes("x")]);
    assert_eq!(raw.offset(), 10);
    let seen = server.seen().await;
    let starts: Vec<_> =
        seen.iter().map(|request| request.split("from=").nth(1).unwrap().split('&').next().unwrap()).collect();
    assert_eq!(starts, ["0", "3", "9"]);
    assert!(seen.iter().all(|request| header(request, "te") == Some("trailers")));
}

#[tokio::test]
async fn nobody_there_is_said_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::new(Endpoint::unix(folder.path().join("none"))).unwrap();
    assert!(matches!(client.status().await, Err(ClientError::Unreachable { .. })));
    assert!(matches!(client.follow(7, OutputCursor::default()).next().await, Err(ClientError::Unreachable { .. })));
    assert!(matches!(client.follow_events(None).next().await, Err(ClientError::Unreachable { .. })));
}
