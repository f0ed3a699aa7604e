//! Output as readers see it: exact, live, from any offset, and never at the cost of others.

use std::time::Duration;

use api::base64;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use common::id::CommandId;
use common::model::StreamName;
use http::{HeaderMap, Method};
use http_body_util::BodyExt;
use serde_json::Value;
use store::types::Gap;
use tokio::time::timeout;

use super::house::House;
use crate::http::body::Cut;

const SOON: Duration = Duration::from_secs(20);

async fn open(house: &House, path: &str, headers: &[(&'static str, &str)]) -> Body {
    let mut request = house.request(Method::GET, path, &house.read, None);
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let response = house.send(request).await;
    assert_eq!(response.status(), 200);
    response.into_body()
}

/// Reads a body to its end: its bytes, its trailers, and whether it was cut.
async fn drain(mut body: Body) -> (Bytes, Option<HeaderMap>, bool) {
    let (mut bytes, mut trailers) = (BytesMut::new(), None);
    while let Some(frame) = timeout(SOON, body.frame()).await.unwrap() {
        match frame.map(http_body::Frame::into_data) {
            Ok(Ok(data)) => bytes.extend_from_slice(&data),
            Ok(Err(frame)) => trailers = frame.into_trailers().ok(),
            Err(error) => {
                let mut cause: &dyn std::error::Error = &error;
                while let Some(inner) = cause.source() {
                    cause = inner;
                }
                assert!(cause.is::<Cut>(), "{error}");
                return (bytes.freeze(), trailers, true);
            }
        }
    }
    (bytes.freeze(), trailers, false)
}

/// Reads events until one of a kind.
async fn events_until(body: &mut Body, last: &str) -> Vec<(String, String, Value)> {
    let (mut text, mut events) = (String::new(), Vec::new());
    loop {
        let frame = timeout(SOON, body.frame()).await.unwrap().unwrap().unwrap();
        text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
        while let Some((event, rest)) = text.split_once("\n\n") {
            let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("").to_owned();
            let event =
                (field("event: "), field("id: "), serde_json::from_str(&field("data: ")).unwrap_or(Value::Null));
            text = rest.to_owned();
            let done = event.0 == last;
            events.push(event);
            if done {
                return events;
            }
        }
    }
}

fn bytes_of(events: &[(String, String, Value)], stream: &str) -> Vec<u8> {
    let pieces = events.iter().filter(|(name, _, data)| name == "output" && data["stream"] == stream);
    pieces.flat_map(|(_, _, data)| base64::decode(data["b64"].as_str().unwrap()).unwrap()).collect()
}

async fn running(house: &House) -> (CommandId, common::id::Uid) {
    let id = house.submit().await;
    (id, house.accept().await[0])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_readers_each_get_every_byte_although_one_stalls() {
    let house = House::new().await;
    let (id, uid) = running(&house).await;
    let whole: Vec<u8> = (0..600_000_u32).flat_map(|n| n.to_le_bytes()).collect();
    let stalled = open(&house, &format!("/commands/{id}/output?follow=true"), &[]).await;
    let mut readers = Vec::new();
    for (index, piece) in whole.chunks(whole.len() / 9 + 1).enumerate() {
        let from = index * 1_000;
        let body = open(&house, &format!("/commands/{id}/output?follow=true&from={from}"), &[]).await;
        readers.push((from, tokio::task::JoinSet::from_iter([drain(body)])));
        let offset = index * (whole.len() / 9 + 1);
        house.write(id, StreamName::Stdout, offset as u64, Bytes::copy_from_slice(piece)).await;
    }
    house.end(&uid, whole.len() as u64, 0, Vec::new()).await;
    assert_eq!(readers.len(), 9);
    for (from, mut reader) in readers {
        let (bytes, trailers, cut) = reader.join_next().await.unwrap().unwrap();
        assert!(bytes == whole[from..] && trailers.is_none() && !cut, "reader from {from}");
    }
    let (bytes, _, cut) = drain(stalled).await;
    assert!(bytes == whole && !cut);
}

#[tokio::test]
async fn bytes_are_readable_before_the_command_ends() {
    let house = House::new().await;
    let (id, uid) = running(&house).await;
    let mut body = open(&house, &format!("/commands/{id}/output?follow=true&stream=stderr"), &[]).await;
    for (n, line) in ["one\n", "two\n", "three\n"].iter().enumerate() {
        house.write(id, StreamName::Stderr, (n * 4) as u64, *line).await;
        let frame = timeout(SOON, body.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(frame.data_ref().unwrap(), line);
    }
    house.end(&uid, 0, 14, Vec::new()).await;
    assert!(timeout(SOON, body.frame()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_gap_ends_the_body_and_says_where_to_go_on() {
    let house = House::new().await;
    let (id, uid) = running(&house).await;
    house.write(id, StreamName::Stdout, 0, "head").await;
    house.lose(id, StreamName::Stdout, 4, 100).await;
    house.write(id, StreamName::Stdout, 104, "tail").await;
    house.end(&uid, 108, 0, vec![Gap { offset: 4, length: 100 }]).await;
    let path = format!("/commands/{id}/output?follow=true");
    let (bytes, trailers, cut) = drain(open(&house, &path, &[("te", "trailers")]).await).await;
    assert_eq!((bytes.as_ref(), cut), (&b"head"[..], false));
    assert_eq!(trailers.unwrap()["paprika-next-offset"], "104");
    let (bytes, _, cut) = drain(open(&house, &path, &[]).await).await;
    assert_eq!((bytes.as_ref(), cut), (&b"head"[..], true), "who cannot be told must not believe it was all");
    let (bytes, trailers, cut) = drain(open(&house, &format!("{path}&from=104"), &[]).await).await;
    assert_eq!((bytes.as_ref(), trailers, cut), (&b"tail"[..], None, false));

    let mut body = open(&house, &format!("/commands/{id}/output"), &[("accept", "text/event-stream")]).await;
    let events = events_until(&mut body, "end").await;
    let gap = events.iter().find(|(_, _, data)| data["gap"].is_u64()).unwrap();
    assert_eq!((&gap.2["offset"], &gap.2["gap"]), (&4.into(), &100.into()));
    assert_eq!(bytes_of(&events, "stdout"), b"headtail");
}

#[tokio::test]
async fn without_follow_a_reader_gets_what_there_is() {
    let house = House::new().await;
    let (id, _) = running(&house).await;
    house.write(id, StreamName::Stdout, 0, "so far").await;
    let path = format!("/commands/{id}/output");
    let (bytes, trailers, cut) = drain(open(&house, &path, &[("te", "trailers")]).await).await;
    assert_eq!((bytes.as_ref(), cut), (&b"so far"[..], false));
    assert_eq!(trailers.unwrap()["paprika-next-offset"], "6");
    let (bytes, _, cut) = drain(open(&house, &format!("{path}?from=3"), &[]).await).await;
    assert_eq!((bytes.as_ref(), cut), (&b"far"[..], false));
    let mut body = open(&house, &format!("{path}?follow=false"), &[("accept", "text/event-stream")]).await;
    let events = events_until(&mut body, "end").await;
    assert_eq!(bytes_of(&events, "stdout"), b"so far");
    assert!(timeout(SOON, body.frame()).await.unwrap().is_none());
}

#[tokio::test]
async fn events_go_on_where_they_were_cut() {
    let house = House::new().await;
    let (id, uid) = running(&house).await;
    let path = format!("/commands/{id}/output");
    let accept = ("accept", "text/event-stream");
    let mut body = open(&house, &path, &[accept]).await;
    let first = events_until(&mut body, "phase").await;
    assert_eq!(first[0].2["phase"], "accepted");
    house.write(id, StreamName::Stdout, 0, "out1").await;
    let one = events_until(&mut body, "output").await;
    assert_eq!(one.last().map(|(_, id, _)| id.as_str()), Some("stdout=4"));
    drop(body);
    house.write(id, StreamName::Stderr, 0, "err").await;
    house.write(id, StreamName::Stdout, 4, "out2").await;
    let mut body = open(&house, &path, &[accept, ("last-event-id", "stdout=4")]).await;
    house.end(&uid, 8, 3, Vec::new()).await;
    let rest = events_until(&mut body, "end").await;
    assert_eq!(bytes_of(&rest, "stdout"), b"out2");
    assert_eq!(bytes_of(&rest, "stderr"), b"err");
    let (_, last, command) = rest.last().unwrap();
    assert_eq!(
        (last.as_str(), &command["phase"], &command["exit_code"]),
        ("stdout=8;stderr=3", &"succeeded".into(), &0.into())
    );
    assert!(timeout(SOON, body.frame()).await.unwrap().is_none());
    // Whoever saw everything is told the end at once.
    let mut body = open(&house, &path, &[accept, ("last-event-id", last)]).await;
    assert_eq!(events_until(&mut body, "end").await.iter().filter(|(name, _, _)| name == "output").count(), 0);
}

#[tokio::test]
async fn changes_are_followed_and_resumed() {
    let house = House::new().await;
    let accept = ("accept", "text/event-stream");
    let mut body = open(&house, "/events", &[accept]).await;
    let begin = events_until(&mut body, "position").await;
    let id = house.submit().await;
    let seen = events_until(&mut body, "").await;
    assert_eq!(seen[0].2["command"], id.0);
    drop(body);
    house.accept().await;
    let mut body = open(&house, "/events", &[accept, ("last-event-id", &begin[0].1)]).await;
    let again = events_until(&mut body, "").await;
    let change = again.iter().find(|(name, _, _)| name.is_empty()).unwrap();
    assert_eq!(change.2, seen[0].2);
    let page = house.get(&format!("/events?after={}", seen[0].1)).await.json();
    assert!(page["items"].as_array().unwrap().iter().all(|event| event["seq"].as_u64() > seen[0].2["seq"].as_u64()));
    assert!(!page["items"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn followers_end_when_the_manager_stops() {
    let house = House::new().await;
    let (id, _) = running(&house).await;
    let path = format!("/commands/{id}/output?follow=true");
    let raw = open(&house, &path, &[("te", "trailers")]).await;
    let old = open(&house, &path, &[]).await;
    let mut events = open(&house, &path, &[("accept", "text/event-stream")]).await;
    let mut changes = open(&house, "/events", &[("accept", "text/event-stream")]).await;
    events_until(&mut events, "phase").await;
    events_until(&mut changes, "position").await;
    house.shutdown.request();
    let (_, trailers, cut) = drain(raw).await;
    assert_eq!((trailers.unwrap()["paprika-next-offset"].to_str().unwrap(), cut), ("0", false));
    assert!(drain(old).await.2, "an old peer must not believe that this was the end");
    for body in [events, changes] {
        assert!(!drain(body).await.2);
    }
}

#[tokio::test]
async fn a_revoked_token_stops_reading() {
    let house = House::new().await;
    let (id, _) = running(&house).await;
    let actor = store::types::Actor("test".to_owned());
    let (token, secret) = house
        .service
        .make_token("brief", store::types::Scope::Read, vec!["admin".to_owned()], None, &actor)
        .await
        .unwrap();
    let mut request = house.request(Method::GET, &format!("/commands/{id}/output?follow=true"), &secret, None);
    request.headers_mut().insert("accept", "text/event-stream".parse().unwrap());
    let mut body = house.send(request).await.into_body();
    events_until(&mut body, "phase").await;
    house.store.token_revoke(&token.id, &actor, 1).await.unwrap();
    assert!(!drain(body).await.2, "the stream ends although nothing else happens");
}

#[tokio::test]
async fn bytes_that_will_never_come_are_a_gap_and_not_a_wait() {
    let house = House::new().await;
    let (id, uid) = running(&house).await;
    house.write(id, StreamName::Stdout, 0, "abc").await;
    house.end(&uid, 10, 0, Vec::new()).await;
    let path = format!("/commands/{id}/output?follow=true");
    assert_eq!(house.call(Method::DELETE, "/agents/web1", &house.admin, None).await.status, 204);
    let raw = open(&house, &path, &[("te", "trailers")]).await;
    let mut events = open(&house, &path, &[("accept", "text/event-stream")]).await;
    let (bytes, trailers, cut) = drain(raw).await;
    assert_eq!((bytes.as_ref(), cut), (&b"abc"[..], false));
    assert_eq!(trailers.unwrap()["paprika-next-offset"], "10");
    let rest = events_until(&mut events, "end").await;
    assert!(rest.iter().any(|(_, _, data)| data["gap"] == 7 && data["offset"] == 3), "{rest:?}");
    let (bytes, trailers, cut) = drain(open(&house, &format!("{path}&from=10"), &[]).await).await;
    assert_eq!((bytes.len(), trailers, cut), (0, None, false));
}

/// A command whose streams keep the least that a quota may be.
async fn chatty(house: &House) -> (CommandId, common::id::Uid) {
    let limits = format!(r#"{{"output":"{}K"}}"#, common::limits::MIN_OUTPUT_QUOTA / 1024);
    let body = format!(r#"{{"operation":"command.run","args":{{"run":["true"]}},"limits":{limits}}}"#);
    let answer = house.post("/agents/web1/commands", &body).await;
    assert_eq!(answer.status, 202, "{}", String::from_utf8_lossy(&answer.body));
    (CommandId(answer.json()["id"].as_u64().unwrap()), house.accept().await[0])
}

/// Writes numbers, four bytes each, from an offset to another.
async fn flood(house: &House, id: CommandId, from: u32, until: u32) {
    for start in (from / 4..until / 4).step_by(8_192) {
        let data: Vec<u8> = (start..(start + 8_192).min(until / 4)).flat_map(u32::to_le_bytes).collect();
        house.write(id, StreamName::Stdout, u64::from(start) * 4, data).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_quota_takes_in_front_of_a_reader_is_told_at_both_doors() {
    const BEGIN: u32 = 256 * 1024;
    const END: u32 = 4 * 1024 * 1024;
    let house = House::new().await;
    let (id, uid) = chatty(&house).await;
    let whole: Vec<u8> = (0..END / 4).flat_map(u32::to_le_bytes).collect();
    flood(&house, id, 0, BEGIN).await;
    let path = format!("/commands/{id}/output?follow=true");
    let mut raw = open(&house, &path, &[("te", "trailers")]).await;
    let mut old = open(&house, &path, &[]).await;
    let mut events = open(&house, &path, &[("accept", "text/event-stream")]).await;
    // All three have begun to read and look away while the rest comes.
    for body in [&mut raw, &mut old] {
        let first = timeout(SOON, body.frame()).await.unwrap().unwrap().unwrap().into_data().unwrap();
        assert!(first == whole[..first.len()] && first.len() < BEGIN as usize);
    }
    events_until(&mut events, "output").await;
    flood(&house, id, BEGIN, END).await;

    // Raw: up to the gap, then where to go on; as often as it takes, until the end.
    let (bytes, trailers, cut) = drain(raw).await;
    let read = 64 * 1024 + bytes.len();
    assert!(!cut && bytes == whole[64 * 1024..read] && read < END as usize);
    let next: usize = trailers.unwrap()["paprika-next-offset"].to_str().unwrap().parse().unwrap();
    assert!(next > BEGIN as usize && next < END as usize);
    let (_, trailers, cut) = drain(old).await;
    assert!(cut && trailers.is_none(), "who cannot be told must not believe it was all");
    // From inside the gap the body has no byte and the same place to go on.
    let inside = open(&house, &format!("{path}&from={BEGIN}"), &[("te", "trailers")]).await;
    let (bytes, trailers, _) = drain(inside).await;
    assert_eq!((bytes.len(), trailers.unwrap()["paprika-next-offset"].to_str().unwrap()), (0, &*next.to_string()));
    house.end(&uid, u64::from(END), 0, Vec::new()).await;
    let (bytes, trailers, cut) = drain(open(&house, &format!("{path}&from={next}"), &[]).await).await;
    assert!(bytes == whole[next..] && trailers.is_none() && !cut);

    // Events: the gap with its size, and everything around it.
    let rest = events_until(&mut events, "end").await;
    let gaps: Vec<(usize, usize)> = rest
        .iter()
        .filter(|(name, _, data)| name == "output" && data["gap"].as_u64().is_some_and(|gap| gap > 0))
        .map(|(_, _, data)| (number(&data["offset"]), number(&data["gap"])))
        .collect();
    assert_eq!(gaps, [(read, next - read)]);
    let seen = bytes_of(&rest, "stdout");
    assert!(seen.ends_with(&whole[next..]) && seen.len() < read + END as usize - next);
    // The row says the same.
    let stdout = &house.get(&format!("/commands/{id}")).await.json()["streams"]["stdout"];
    assert_eq!((number(&stdout["length"]), &stdout["end"]), (END as usize, &true.into()));
    assert_eq!((number(&stdout["gaps"][0]["offset"]), number(&stdout["gaps"][0]["length"])), (read, next - read));
}

fn number(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_followed_with_every_byte_or_the_gap_in_its_place() {
    const END: u32 = 12 * 1024 * 1024;
    let house = House::new().await;
    let (id, uid) = chatty(&house).await;
    let mut body = open(&house, &format!("/commands/{id}/output"), &[("accept", "text/event-stream")]).await;
    let (_, events) = tokio::join!(
        async {
            flood(&house, id, 0, END).await;
            house.end(&uid, u64::from(END), 0, Vec::new()).await;
        },
        events_until(&mut body, "end")
    );
    let mut at = 0;
    for (_, _, data) in events.iter().filter(|(name, _, _)| name == "output") {
        assert_eq!(number(&data["offset"]), at);
        let bytes = base64::decode(data["b64"].as_str().unwrap()).unwrap();
        let first = u32::try_from(at / 4).unwrap();
        let written = (first..).flat_map(u32::to_le_bytes).skip(at % 4).take(bytes.len());
        assert!(written.eq(bytes.iter().copied()), "other bytes at {at}");
        at += bytes.len() + data["gap"].as_u64().map_or(0, |gap| usize::try_from(gap).unwrap());
    }
    assert_eq!(at, END as usize);
}
