//! The typed client against the real doors.

use std::time::Duration;

use api::client::{Client, ClientError, Endpoint, OutputEvent, RawPiece};
use api::commands::{CancelOutcome, CancelRequest, CommandQuery, CommandRequest, JobRequest, OutputCursor};
use api::tokens::{Scope, TokenRequest};
use common::id::Name;
use common::model::{Phase, StreamName};
use serde_json::json;
use store::types::Gap;

use super::house::{AGENT, House};

fn name() -> Name {
    AGENT.parse().unwrap()
}

fn ping() -> CommandRequest {
    CommandRequest { operation: "agent.ping".to_owned(), args: json!({}), ..CommandRequest::default() }
}

async fn clients(house: &House) -> [Client; 2] {
    let bound = house.open().await;
    let network = Endpoint::parse(&format!("https://{}", bound.api))
        .unwrap()
        .ca_pem(house.ca_pem.clone())
        .token(house.admin.clone());
    let local = Endpoint::unix(bound.socket.unwrap());
    [network, local].map(|endpoint| Client::new(endpoint).unwrap())
}

#[tokio::test]
async fn both_doors_give_the_same_answers() {
    let house = House::new().await;
    for client in clients(&house).await {
        let started = client.start(&name(), &ping()).await.unwrap();
        assert_eq!(started.phase, Phase::Queued);
        assert_eq!(client.command(started.id).await.unwrap(), started);
        let query = CommandQuery { agent: Some(name()), phases: vec![Phase::Queued], ..CommandQuery::default() };
        assert_eq!(client.commands(&query).await.unwrap().items, std::slice::from_ref(&started));
        let cancelled = client.cancel(started.id, &CancelRequest::default()).await.unwrap();
        assert_eq!((cancelled.answer, cancelled.command.phase), (CancelOutcome::Cancelled, Phase::Cancelled));
        let waited = client.wait_command(started.id, Duration::from_millis(1_500)).await.unwrap();
        assert_eq!(waited.phase, Phase::Cancelled);
        let job = client.start_job(&JobRequest::new(vec![name()], ping())).await.unwrap();
        client.cancel(job.commands[0].id, &CancelRequest::default()).await.unwrap();
        assert_eq!(client.agents(None, None).await.unwrap().items.len(), 1);
        assert_eq!(client.agent(&name()).await.unwrap().name, name());
        let made = client
            .create_token(&TokenRequest { name: "x".to_owned(), scope: Scope::Read, expires_in: None, roles: None })
            .await
            .unwrap();
        client.revoke_token(&made.token.id).await.unwrap();
        assert!(client.status().await.unwrap().degraded.is_empty());
        assert!(
            !client
                .audit(&api::audit::AuditQuery { limit: Some(5), ..Default::default() })
                .await
                .unwrap()
                .items
                .is_empty()
        );
        assert!(!client.events(0, None).await.unwrap().items.is_empty());
        let refused = client.command(4711).await.unwrap_err();
        assert_eq!(refused.problem().map(|problem| problem.code.as_str()), Some("not_found"));
    }
}

#[tokio::test]
async fn a_command_is_paused_and_goes_on_at_both_doors() {
    let house = House::new().await;
    for client in clients(&house).await {
        let id = house.submit().await.0;
        let early = client.pause(id).await.unwrap_err();
        assert_eq!(early.problem().map(|problem| problem.code.as_str()), Some("not_started"));
        house.accept().await;
        let wish = client.pause(id).await.unwrap().pause.unwrap();
        assert!(wish.paused && wish.pending && wish.refused.is_none());
        assert_eq!(client.command(id).await.unwrap().pause, Some(wish));
        assert!(!client.resume(id).await.unwrap().pause.unwrap().paused);
    }
}

#[tokio::test]
async fn output_is_followed_to_its_end() {
    let house = House::new().await;
    for client in clients(&house).await {
        let id = house.submit().await;
        let uid = house.accept().await[0];
        let mut follower = client.follow(id.0, OutputCursor::default());
        assert!(
            matches!(follower.next().await.unwrap(), Some(OutputEvent::Phase(command)) if command.phase == Phase::Accepted)
        );
        house.write(id, StreamName::Stdout, 0, "hello").await;
        let piece = follower.next().await.unwrap();
        assert_eq!(piece, Some(OutputEvent::Bytes { stream: StreamName::Stdout, offset: 0, bytes: "hello".into() }));
        house.lose(id, StreamName::Stdout, 5, 7).await;
        house.write(id, StreamName::Stdout, 12, "world").await;
        house.end(&uid, 17, 0, vec![Gap { offset: 5, length: 7 }]).await;
        let mut rest = Vec::new();
        while let Some(event) = follower.next().await.unwrap() {
            rest.push(event);
        }
        assert!(rest.contains(&OutputEvent::Gap { stream: StreamName::Stdout, offset: 5, length: 7 }));
        assert!(matches!(rest.last(), Some(OutputEvent::End(command)) if command.exit_code == Some(0)));
        assert_eq!(follower.cursor().next(StreamName::Stdout), 17);

        let mut raw = client.raw_output(id.0, StreamName::Stdout, 0, true);
        let mut pieces = Vec::new();
        while let Some(piece) = raw.next().await.unwrap() {
            pieces.push(piece);
        }
        assert_eq!(
            pieces,
            [RawPiece::Bytes("hello".into()), RawPiece::Gap { offset: 5, length: 7 }, RawPiece::Bytes("world".into())]
        );
    }
}

#[tokio::test]
async fn changes_are_followed() {
    let house = House::new().await;
    let [client, _] = clients(&house).await;
    let mut changes = client.follow_events(Some(0));
    let first = changes.next().await.unwrap();
    let id = house.submit().await;
    let mut last = first.clone();
    while last.command != Some(id.0) {
        let next = changes.next().await.unwrap();
        assert!(next.seq > last.seq);
        last = next;
    }
}

#[tokio::test]
async fn a_manager_of_another_ca_is_not_trusted_and_nobody_is_unreachable() {
    let (house, other) = (House::new().await, House::new().await);
    let bound = house.open().await;
    let endpoint = Endpoint::parse(&format!("https://{}", bound.api)).unwrap();
    let stranger = Client::new(endpoint.clone().ca_pem(other.ca_pem.clone()).token("x")).unwrap();
    assert!(matches!(stranger.status().await, Err(ClientError::Untrusted { .. })));
    assert!(matches!(Client::new(endpoint.clone()), Err(ClientError::Untrusted { .. })), "no CA is named");
    let nobody = Client::new(endpoint.ca_pem(house.ca_pem.clone())).unwrap();
    assert_eq!(nobody.status().await.unwrap_err().problem().map(|problem| problem.status), Some(401));
    house.shutdown.request();
    assert!(house.tasks.join(Duration::from_secs(20)).await.is_empty());
    assert!(matches!(nobody.status().await, Err(ClientError::Unreachable { .. })));
}
