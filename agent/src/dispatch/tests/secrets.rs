//! Commands with secrets on their way in, and back out.

use std::fs;

use common::id::Uid;
use common::version::capability;
use common::wire::command_ack::Answer;
use common::wire::frame::Body;
use common::wire::reconcile_item::Action;
use common::wire::{Command, Reconcile, ReconcileItem, Secrets};
use prost::Message;

use super::bed::{Bed, run};
use crate::commands::{record, seals};

const CANARY: &[u8] = b"canary-4711-canary";

fn secret(uid: Uid, id: u64) -> Command {
    let env = [("TOKEN".to_owned(), CANARY.into())].into();
    let secrets = Secrets { env, stdin: CANARY.into(), has_stdin: true };
    Command { secrets: Some(secrets), needs: vec![capability::SECRETS.to_owned()], ..run(uid, id) }
}

/// Protocol R-SECRET-2.
#[tokio::test]
async fn secrets_are_sealed_before_the_acknowledgement_survive_a_restart_and_are_sent_back_by_name() {
    let folder = tempfile::tempdir().unwrap();
    // A shim that does nothing: the command stays accepted.
    let bed = Bed::start(folder.path(), "/bin/true").await;
    let mut manager = bed.ready().await;
    let uid = Uid::random();
    manager.say(Body::Command(secret(uid, 7))).await;
    let (_, ack) = manager.ack().await;
    assert_eq!(ack.answer(), Answer::Accepted);
    let dir = bed.home.state.command(uid);
    let written = fs::read(dir.join(record::FILE)).unwrap();
    assert!(!written.windows(CANARY.len()).any(|window| window == CANARY));
    drop(manager);
    bed.stop().await;

    let bed = Bed::start(folder.path(), "/bin/true").await;
    let opened = seals::give(&dir, &record::read(&dir).unwrap().spec).unwrap().unwrap();
    assert_eq!((opened.env["TOKEN"].as_ref(), opened.stdin.as_ref()), (CANARY, CANARY));
    let (mut manager, first) = bed.connect(1, 1 << 20).await;
    assert_eq!(first.items.len(), 1);
    let item = ReconcileItem { uid: uid.to_wire(), action: Action::Describe.into(), streams: Vec::new() };
    manager.say(Body::Reconcile(Reconcile { items: vec![item], last: true })).await;
    let described = loop {
        if let Some(Body::Inventory(described)) = manager.hear().await.body {
            break described;
        }
    };
    let described = Command::decode(described.items[0].command.clone()).unwrap();
    assert_eq!(described.secrets, secret(uid, 7).secrets.map(|secrets| secrets.names()));
}

/// Protocol R-SECRET-3.
#[tokio::test]
async fn an_agent_that_has_nothing_to_seal_with_refuses_secrets_and_takes_the_rest() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(seals::FILE), "a".repeat(64)).unwrap();
    fs::set_permissions(folder.path().join(seals::FILE), fs::Permissions::from_mode(0o644)).unwrap();
    let bed = Bed::start(folder.path(), "/bin/true").await;
    let mut manager = bed.ready().await;
    manager.say(Body::Command(secret(Uid::random(), 7))).await;
    let (_, ack) = manager.ack().await;
    assert_eq!((ack.answer(), ack.code.as_str()), (Answer::Refused, "no_secrets_key"));
    manager.say(Body::Command(run(Uid::random(), 8))).await;
    let (_, ack) = manager.ack().await;
    assert_eq!(ack.answer(), Answer::Accepted);
}
