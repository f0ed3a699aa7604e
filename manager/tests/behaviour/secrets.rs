//! Secrets of commands between the submit, the store and the frame.

use std::path::PathBuf;

use common::config::{Secret, SecretBytes};
use common::id::{CommandId, Uid};
use common::model::Phase;
use manager::link::messages::import;
use prost::Message;
use store::types::{Held, HeldPhase, OpenSecrets, Request, Secrets};

use crate::house::{House, request, wait_for};

const CANARY: &[u8] = b"canary-4711-canary";

fn secret() -> Request {
    let env = [("TOKEN".to_owned(), Secret::new(String::from_utf8(CANARY.to_vec()).unwrap()))].into();
    let stdin = Some(SecretBytes::new(CANARY.to_vec()));
    Request { secrets: Secrets::Open(OpenSecrets { env, stdin }), ..request() }
}

async fn submit(house: &House) -> CommandId {
    let agents = vec!["web1".parse().unwrap()];
    let submitted = house.service.submit(&house.admin, agents, secret(), None, false, None).await.unwrap();
    submitted.commands[0]
}

/// Every file of the manager's folder, also those that only the database knows how to read.
fn files_with(house: &House, canary: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![house.folder().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if std::fs::read(&path).is_ok_and(|bytes| bytes.windows(canary.len()).any(|window| window == canary))
            {
                found.push(path);
            }
        }
    }
    found
}

/// Protocol R-SECRET-1, R-SECRET-4.
#[tokio::test]
async fn secrets_reach_the_frame_and_stand_in_no_file() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let id = submit(&house).await;
    assert_eq!(files_with(&house, CANARY), Vec::<PathBuf>::new());
    assert!(!files_with(&house, b"env\":[\"TOKEN").is_empty(), "the names are there");
    let mut peer = house.connect(&identity, 1).await;
    let (seq, command) = peer.command().await;
    assert!(command.needs.iter().any(|word| word == "secrets") && !command.has_stdin && command.env.is_empty());
    let got = command.secrets.clone().unwrap();
    assert_eq!((got.env["TOKEN"].as_ref(), got.stdin.as_ref()), (CANARY, CANARY));
    peer.accept(seq, &command).await;
    wait_for("accepted", || async { (house.phase(id).await == "accepted").then_some(()) }).await;
    assert_eq!(files_with(&house, CANARY), Vec::<PathBuf>::new());
    let shown = house.service.command(&house.admin, id).await.unwrap().command;
    assert_eq!(shown.request.secrets.names(), ["env.TOKEN", "stdin"]);
    assert!(!format!("{shown:?}").contains("canary-4711"));
}

async fn refused(house: &House, id: CommandId) -> (String, String) {
    let end = wait_for("the end", || async {
        let command = house.service.command(&house.admin, id).await.unwrap().command;
        (command.phase == Phase::Refused).then_some(command.end)
    })
    .await;
    let error = end.and_then(|end| end.error).unwrap();
    (error.code, error.text)
}

/// Protocol R-SECRET-4, R-CMD-9.
#[tokio::test]
async fn with_a_lost_key_the_command_ends_as_refused_and_the_others_go_on() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let id = submit(&house).await;
    let plain = house.submit("web1").await;
    let house = house.restarted_with_key(2).await;
    let mut peer = house.connect(&identity, 1).await;
    let (_, command) = peer.command().await;
    assert_eq!(command.id, plain.0, "the one with secrets was not sent");
    let (code, text) = refused(&house, id).await;
    assert_eq!(code, "secrets_lost");
    assert!(text.contains("sealed with another key") && !text.contains("canary"), "{text}");
    let again = submit(&house).await;
    let (_, command) = peer.command().await;
    assert_eq!(command.id, again.0);
}

/// Protocol R-CMD-11.
#[tokio::test]
async fn an_agent_that_is_too_old_gets_no_command_with_secrets() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut peer = house.dial(&identity, 1001);
    let mut hello = house.hello(&identity, 1);
    hello.capabilities.retain(|word| word != "secrets");
    peer.hello(&hello).await;
    peer.welcome().await;
    peer.settle(Vec::new()).await;
    let id = submit(&house).await;
    let (code, text) = refused(&house, id).await;
    assert_eq!(code, "unsupported");
    assert!(text.contains("secrets"), "{text}");
    let plain = house.submit("web1").await;
    let (_, command) = peer.command().await;
    assert_eq!(command.id, plain.0);
}

/// Protocol R-SECRET-2.
#[tokio::test]
async fn a_command_that_only_its_agent_knows_names_its_secrets_and_is_never_sent_without_them() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    submit(&house).await;
    let mut peer = house.connect(&identity, 1).await;
    let (_, command) = peer.command().await;
    let names = command.secrets.as_ref().map(common::wire::Secrets::names);
    assert!(names.as_ref().is_some_and(|names| names.env.contains_key("TOKEN") && names.has_stdin));
    let described = common::wire::Command { secrets: names, ..command };
    let held = Held {
        uid: Uid::from_wire(&described.uid).unwrap(),
        id: CommandId(described.id),
        generation: identity.generation,
        phase: HeldPhase::Accepted,
        started_ms: None,
        tombstone: false,
    };
    let import = import(&identity.name, Uid([1; 16]), &held, &described.encode_to_vec()).unwrap();
    assert_eq!(import.request.secrets.names(), ["env.TOKEN", "stdin"]);
    let error = house.service.seals().open(&import.request.secrets).unwrap_err();
    assert_eq!(error.to_string(), "the secrets of this command are not known here");
}
