//! Commands that only their tombstone remembers, and a manager that asks for them.

use common::id::{CommandId, Uid};
use common::model::{Outcome, StreamName};
use common::wire::command_ack::Answer;
use common::wire::frame::Body;
use common::wire::reconcile_item::Action;
use common::wire::{
    Command, CommandPhase, Inventory, InventoryItem, Nak, Reconcile, ReconcileItem, ResultAck, StreamLength, nak,
};
use prost::Message;

use super::bed::{Bed, GENERATION, Manager, NOW, run};
use crate::commands::tombstones::{Origin, Tombstone, Tombstones};
use crate::commands::{End, StateDir, StreamEnd};

/// One that ended with 100 bytes on stdout.
fn stone(id: u64) -> Tombstone {
    let mut end = End::without_process(Outcome::Failed, 5);
    end.exit_code = Some(3);
    end.started_ms = 4;
    let stdout = StreamEnd { stream: StreamName::Stdout, length: 100, gaps: Vec::new(), segments: Vec::new() };
    end.streams.push(stdout);
    let origin = Origin { generation: GENERATION, operation: "command.run".into(), created_ms: 3 };
    Tombstone { uid: Uid::random(), id: CommandId(id), expires_ms: NOW + 60_000, end, origin: Some(origin) }
}

/// An agent with these tombstones, and what it lists to a store it never met.
async fn bed(folder: &std::path::Path, stones: &[Tombstone]) -> (Bed, Manager, Inventory) {
    let state = StateDir::open(folder).unwrap();
    Tombstones::open(&state.tombstones(), 0).unwrap().insert_many(stones).unwrap();
    drop(state);
    let bed = Bed::start(folder, "/bin/true").await;
    let (manager, first) = bed.connect(1, 1 << 20).await;
    (bed, manager, first)
}

async fn answer(manager: &mut Manager, items: Vec<ReconcileItem>) {
    manager.say(Body::Reconcile(Reconcile { items, last: true })).await;
}

fn want(uid: Uid, action: Action, stdout: u64) -> ReconcileItem {
    let streams = vec![StreamLength { stream: StreamName::Stdout.to_wire(), length: stdout }];
    ReconcileItem { uid: uid.to_wire(), action: action.into(), streams }
}

async fn described(manager: &mut Manager) -> Vec<InventoryItem> {
    match manager.hear().await.body {
        Some(Body::Inventory(page)) => page.items,
        other => panic!("no description but {other:?}"),
    }
}

async fn gap(manager: &mut Manager) -> (u64, u64, usize, bool) {
    match manager.hear().await.body {
        Some(Body::CommandOutput(output)) => (output.offset, output.gap, output.data.len(), output.end),
        other => panic!("no gap but {other:?}"),
    }
}

/// Whether the next session of the same store is told the past again.
async fn listed_again(bed: &Bed, manager: Manager) -> bool {
    drop(manager);
    !bed.connect(1, 1 << 20).await.1.items.is_empty()
}

/// Protocol R-INV-3, R-INV-4.
#[tokio::test]
async fn a_row_that_runs_on_in_an_old_copy_gets_its_end_and_a_gap_for_what_is_gone() {
    for action in [Action::Continue, Action::Stop] {
        let folder = tempfile::tempdir().unwrap();
        let stone = stone(7);
        let (bed, mut manager, first) = bed(folder.path(), std::slice::from_ref(&stone)).await;
        let item = &first.items[0];
        assert_eq!((item.tombstone, item.phase(), item.generation), (true, CommandPhase::Ended, GENERATION));
        assert_eq!((item.id, item.started_ms, item.streams[0].length), (7, 4, 100));
        answer(&mut manager, vec![want(stone.uid, action, 60)]).await;
        let result = manager.result().await;
        assert_eq!((Outcome::from_wire(result.outcome), result.exit_code), (Some(Outcome::Failed), 3));
        assert_eq!(result.streams[0].length, 100);
        assert_eq!(gap(&mut manager).await, (60, 40, 0, true));
        manager.say(Body::ResultAck(ResultAck { uid: stone.uid.to_wire(), store_position: 0 })).await;
        assert!(!listed_again(&bed, manager).await, "it has arrived");
    }
}

#[tokio::test]
async fn what_nobody_knows_is_described_with_as_much_as_is_left_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let (full, bare) = (stone(7), Tombstone { origin: None, ..stone(8) });
    let (_bed, mut manager, first) = bed(folder.path(), &[full.clone(), bare.clone()]).await;
    assert!(first.items.iter().all(|item| item.generation == GENERATION), "one from before counts as ours");
    let asked = [&full, &bare].map(|stone| want(stone.uid, Action::Describe, 0));
    answer(&mut manager, asked.to_vec()).await;
    let items = described(&mut manager).await;
    assert_eq!(items.len(), 2);
    for (item, (stone, operation, created_ms)) in items.iter().zip([(&full, "command.run", 3), (&bare, "", 0)]) {
        assert!(item.tombstone && item.uid == stone.uid.to_wire(), "{item:?}");
        let command = Command::decode(item.command.clone()).unwrap();
        let wanted = Command {
            uid: stone.uid.to_wire(),
            id: stone.id.0,
            operation: operation.to_owned(),
            args: "{}".into(),
            expires_ms: stone.expires_ms,
            generation: GENERATION,
            created_ms,
            ..Command::default()
        };
        assert_eq!(command, wanted);
        assert_eq!(manager.result().await.uid, stone.uid.to_wire());
    }
}

#[tokio::test]
async fn a_result_that_overtook_its_description_is_said_again_and_one_that_is_refused_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let stone = stone(7);
    let (bed, mut manager, _) = bed(folder.path(), std::slice::from_ref(&stone)).await;
    answer(&mut manager, vec![want(stone.uid, Action::Describe, 0)]).await;
    assert_eq!(described(&mut manager).await.len(), 1);
    let refusal = || Body::Nak(Nak { code: nak::Code::Unknown.into(), reason: "not here".into() });
    let frame = manager.hear().await;
    assert!(matches!(frame.body, Some(Body::CommandResult(_))));
    manager.answer(frame.seq, refusal()).await;
    answer(&mut manager, vec![want(stone.uid, Action::Continue, 0)]).await;
    let frame = manager.hear().await;
    assert!(matches!(frame.body, Some(Body::CommandResult(_))), "{frame:?}");
    assert_eq!(gap(&mut manager).await, (0, 100, 0, true));
    manager.answer(frame.seq, refusal()).await;
    answer(&mut manager, vec![want(stone.uid, Action::Continue, 0)]).await;
    manager.say(Body::Ping(Default::default())).await;
    assert!(matches!(manager.hear().await.body, Some(Body::Pong(_))), "a refusal stands");
    assert!(!listed_again(&bed, manager).await);
}

#[tokio::test]
async fn the_past_is_over_when_the_manager_does_not_want_it_and_not_before_it_has_answered() {
    for (action, again) in [(Action::Forget, false), (Action::NotMine, false), (Action::Describe, true)] {
        let folder = tempfile::tempdir().unwrap();
        let stone = stone(7);
        let (bed, mut manager, _) = bed(folder.path(), std::slice::from_ref(&stone)).await;
        answer(&mut manager, vec![want(stone.uid, Action::Describe, 0)]).await;
        described(&mut manager).await;
        manager.result().await;
        if action != Action::Describe {
            answer(&mut manager, vec![want(stone.uid, action, 0)]).await;
        }
        manager.say(Body::Ping(Default::default())).await;
        assert!(matches!(manager.hear().await.body, Some(Body::Pong(_))));
        assert_eq!(listed_again(&bed, manager).await, again, "{action:?}");
        bed.stop().await;
        let bed = Bed::start(folder.path(), "/bin/true").await;
        let (_, first) = bed.connect(1, 1 << 20).await;
        assert_eq!(!first.items.is_empty(), again, "{action:?}, and after a restart");
    }
}

#[tokio::test]
async fn what_was_too_much_for_one_session_is_listed_in_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let (taken, left) = (stone(7), stone(8));
    let (bed, mut manager, first) = bed(folder.path(), &[taken.clone(), left]).await;
    assert_eq!(first.items.len(), 2);
    answer(&mut manager, vec![want(taken.uid, Action::Forget, 0)]).await;
    manager.say(Body::Ping(Default::default())).await;
    assert!(matches!(manager.hear().await.body, Some(Body::Pong(_))));
    assert!(listed_again(&bed, manager).await);
}

#[tokio::test]
async fn a_long_past_arrives_whole() {
    let folder = tempfile::tempdir().unwrap();
    let stones: Vec<_> = (1..=300).map(stone).collect();
    let (_bed, mut manager, first) = bed(folder.path(), &stones).await;
    assert_eq!(first.items.len(), stones.len());
    answer(&mut manager, stones.iter().map(|stone| want(stone.uid, Action::Describe, 0)).collect()).await;
    let (mut items, mut results) = (0, 0);
    while items + results < 2 * stones.len() {
        match manager.hear().await.body {
            Some(Body::Inventory(page)) => items += page.items.len(),
            Some(Body::CommandResult(_)) => results += 1,
            other => panic!("{other:?}"),
        }
        assert!(results <= items, "no result comes before its description");
    }
    assert_eq!((items, results), (300, 300));
}

#[tokio::test]
async fn a_command_of_the_past_that_is_sent_again_has_an_end_for_its_bytes_too() {
    let folder = tempfile::tempdir().unwrap();
    let stone = stone(7);
    let (_bed, mut manager, _) = bed(folder.path(), std::slice::from_ref(&stone)).await;
    answer(&mut manager, Vec::new()).await;
    manager.say(Body::Command(run(stone.uid, 7))).await;
    let (_, ack) = manager.ack().await;
    assert_eq!((ack.answer(), ack.phase()), (Answer::Duplicate, CommandPhase::Ended));
    assert_eq!(manager.result().await.exit_code, 3);
    assert_eq!(gap(&mut manager).await, (0, 100, 0, true));
}
