//! Two live agents, one of them hostile: whatever it says about the other's commands changes nothing and shows nothing.
//!
//! Every frame that an agent may send is generated a thousand times with fields that are about the other agent: its
//! uids, ids, names, journal, offsets. Afterwards the other's rows, bytes and session are as before, and nothing that
//! the hostile one heard held a byte of what the other's commands say, take or write.

use common::id::{CommandId, Uid};
use common::model::StreamName;
use common::session::{Judgement, Side, Stage, judge, name, one_of_each};
use common::tls::Identity;
use common::wire::frame::Body;
use common::wire::{self, Frame};
use prost::Message;
use store::types::{EventFilter, OutputRead, Request};

use crate::house::{House, wait_for};
use crate::peer::Peer;

/// Cases of each kind of frame.
const CASES: usize = 1_000;
/// What only the other agent's commands hold.
const CANARY: &str = "canary-8c1f";

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        let at = self.below(all.len() as u64) as usize;
        all[at].clone()
    }

    fn number(&mut self) -> u64 {
        let wild = self.roll();
        self.of(&[0, 1, 2, 7, 12, 1 << 20, u64::from(u32::MAX), i64::MAX as u64, u64::MAX, wild])
    }
}

/// What the hostile agent knows of the other: everything but its key.
struct Victim {
    commands: Vec<wire::Command>,
    ids: Vec<CommandId>,
    queued: CommandId,
    queued_uid: Uid,
    generation: u64,
}

impl Victim {
    fn uid(&self, dice: &mut Dice) -> Vec<u8> {
        let mut all: Vec<Vec<u8>> = self.commands.iter().map(|command| command.uid.clone().into()).collect();
        all.push(self.queued_uid.to_wire().into());
        dice.of(&all)
    }

    fn id(&self, dice: &mut Dice) -> u64 {
        let mut all: Vec<u64> = self.ids.iter().map(|id| id.0).collect();
        all.push(self.queued.0);
        dice.of(&all)
    }
}

/// A house with a victim that has a running, an ended and a queued command.
async fn scene() -> (House, Peer, Victim, Identity) {
    let house = House::build().await;
    let (victim, thief) = (house.agent("victim").await, house.agent("thief").await);
    let mut honest = house.connect(&victim, 1).await;
    let mut commands = Vec::new();
    let mut ids = Vec::new();
    for end in [true, false] {
        let request = Request {
            operation: "command.run".to_owned(),
            args: format!(r#"{{"run":["echo","{CANARY}"]}}"#),
            ..Request::default()
        };
        let submitted = house.service.submit(&house.admin, vec!["victim".parse().unwrap()], request, None, false, None);
        let id = *submitted.await.unwrap().commands.first().unwrap();
        let (seq, command) = honest.command().await;
        honest.accept(seq, &command).await;
        honest.output(&command, 0, CANARY.as_bytes()).await;
        if end {
            honest.finish(&command, CANARY.len() as u64).await;
            honest.acked().await;
        } else {
            let running = wire::CommandProgress {
                uid: command.uid.clone(),
                phase: wire::CommandPhase::Running.into(),
                ..Default::default()
            };
            honest.send(Body::CommandProgress(running)).await;
            wait_for("running", || async { (house.phase(id).await == "running").then_some(()) }).await;
        }
        let store = &house.store;
        wait_for("its bytes", || async {
            let stored = store.stored_lengths(id).await.unwrap();
            stored.iter().any(|(_, length)| *length == CANARY.len() as u64).then_some(())
        })
        .await;
        commands.push(command);
        ids.push(id);
    }
    // Nothing is sent to a drained agent: this one stays queued.
    house.service.set_drained(&house.admin, &"victim".parse().unwrap(), true).await.unwrap();
    let queued = house.submit("victim").await;
    let queued_uid = house.store.command(queued).await.unwrap().unwrap().uid;
    let generation = victim.generation.0;
    (house, honest, Victim { commands, ids, queued, queued_uid, generation }, thief)
}

/// Everything the store says about the victim, as text.
async fn picture(house: &House, victim: &Victim) -> String {
    let mut seen = String::new();
    for id in victim.ids.iter().chain([&victim.queued]) {
        seen.push_str(&format!("{:?}\n", house.store.command(*id).await.unwrap()));
        seen.push_str(&format!("{:?}\n", house.store.evidence(*id).await.unwrap()));
        seen.push_str(&format!("{:?}\n", house.store.stored_lengths(*id).await.unwrap()));
        for stream in [StreamName::Stdout, StreamName::Stderr] {
            let read = house.store.read_output(*id, stream, 0, 1_000).await.unwrap();
            let bytes = if let OutputRead::Bytes(bytes) = &read { format!("{bytes:?}") } else { format!("{read:?}") };
            seen.push_str(&format!("{bytes}\n"));
        }
    }
    let about = EventFilter { agent: Some("victim".parse().unwrap()), ..EventFilter::default() };
    seen.push_str(&format!("{:?}\n", house.store.events(0, 1_000, about).await.unwrap()));
    seen.push_str(&format!("{:?}\n", house.store.agent(&"victim".parse().unwrap()).await.unwrap()));
    seen
}

fn stream(dice: &mut Dice) -> i32 {
    dice.of(&[0, 1, 2, 3, 77, -1])
}

/// One frame of a kind, about the victim.
fn forged(kind: &Body, victim: &Victim, dice: &mut Dice) -> Body {
    let (uid, id) = (victim.uid(dice), victim.id(dice));
    let generation = dice.of(&[victim.generation, 0, victim.generation + 1]);
    match kind {
        Body::CommandAck(_) => Body::CommandAck(wire::CommandAck {
            uid: uid.into(),
            answer: dice.below(7) as i32,
            phase: dice.below(8) as i32,
            deferred_until_ms: dice.number(),
            code: "forged".to_owned(),
            text: "forged".to_owned(),
        }),
        Body::CommandProgress(_) => Body::CommandProgress(wire::CommandProgress {
            uid: uid.into(),
            phase: dice.below(8) as i32,
            current: dice.number(),
            total: dice.number(),
            text: "forged".to_owned(),
            at_ms: dice.number(),
            isolation: "forged".to_owned(),
        }),
        Body::CommandOutput(_) => Body::CommandOutput(wire::CommandOutput {
            uid: uid.into(),
            stream: stream(dice),
            offset: dice.of(&[0, 5, CANARY.len() as u64, u64::MAX]),
            data: dice.of(&["", "forged", CANARY]).to_owned().into(),
            end: dice.below(2) == 1,
            gap: dice.of(&[0, 1, u64::MAX]),
        }),
        Body::CommandResult(_) => Body::CommandResult(wire::CommandResult {
            uid: uid.into(),
            id,
            outcome: dice.below(9) as i32,
            has_exit_code: dice.below(2) == 1,
            exit_code: dice.roll() as i32,
            started_ms: dice.number(),
            finished_ms: dice.number(),
            streams: vec![wire::StreamEnd { stream: stream(dice), length: dice.number(), ..Default::default() }],
            cancelled_by: "forged".to_owned(),
            lengths_are_lower_bounds: dice.below(2) == 1,
            ..Default::default()
        }),
        Body::Inventory(_) => {
            // With a tombstone or a whole command of its own making, as after a restore.
            let described = wire::Command { uid: uid.clone().into(), id, generation, ..dice.of(&victim.commands) };
            let item = wire::InventoryItem {
                uid: uid.into(),
                id,
                phase: dice.below(8) as i32,
                generation,
                streams: vec![wire::StreamLength { stream: stream(dice), length: dice.number() }],
                tombstone: dice.below(2) == 1,
                command: if dice.below(2) == 1 { described.encode_to_vec().into() } else { Default::default() },
                started_ms: dice.number(),
            };
            Body::Inventory(wire::Inventory { items: vec![item], last: true })
        }
        other => other.clone(),
    }
}

#[tokio::test]
async fn nothing_that_one_agent_says_changes_or_shows_anything_of_another() {
    let (house, mut honest, victim, thief) = scene().await;
    let before = picture(&house, &victim).await;
    let mut dice = Dice(7);
    let mut kinds = 0;
    for kind in one_of_each() {
        let frame = Frame { body: Some(kind.clone()), ..Frame::default() };
        // What ends a session at once is tried below, each time with a new one.
        if judge(Side::Agent, Stage::Open, &frame) != Judgement::Process || matches!(kind, Body::Bye(_)) {
            continue;
        }
        kinds += 1;
        let mut peer = house.connect(&thief, 2).await;
        for case in 0..CASES {
            let body = forged(&kind, &victim, &mut dice);
            let shown = format!("{} case {case}: {body:?}", name(&body));
            let reply_to = dice.of(&[0, 0, 1, 2, 3]);
            if peer.try_reply(reply_to, body).await.is_none() || !heard(&mut peer, &shown).await {
                peer = house.connect(&thief, 2).await;
            }
        }
    }
    assert!(kinds >= 9, "the table of frames lost some: {kinds}");
    assert_eq!(picture(&house, &victim).await, before);
    // The victim's session was not touched, and its commands go on.
    honest.nothing_waits().await;
    let running = victim.commands.last().unwrap();
    honest.finish(running, CANARY.len() as u64).await;
    assert_eq!(honest.acked().await.to_wire(), running.uid);
}

/// Reads what the frame brought, up to the answer to a ping; false when the session was ended for it.
async fn heard(peer: &mut Peer, shown: &str) -> bool {
    // A manager that has closed still left words to read.
    let ping = peer.try_reply(0, Body::Ping(wire::Ping::default())).await;
    while let Some(frame) = peer.next().await {
        let bytes = frame.encode_to_vec();
        assert!(!bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()), "{frame:?} to {shown}");
        // How far another agent's streams are stored is nobody else's to know.
        if let Some(Body::Reconcile(reconcile)) = &frame.body {
            for item in &reconcile.items {
                let lengths: Vec<u64> = item.streams.iter().map(|stream| stream.length).collect();
                assert!(lengths.iter().all(|length| *length != CANARY.len() as u64), "{item:?} to {shown}");
            }
        }
        match frame.body {
            Some(Body::Pong(_)) if Some(frame.reply_to) == ping => return true,
            Some(Body::Bye(_)) => return false,
            _ => {}
        }
    }
    false
}

#[tokio::test]
async fn no_hello_makes_one_agent_another() {
    let (house, mut honest, victim, thief) = scene().await;
    let before = picture(&house, &victim).await;
    let mut dice = Dice(11);
    for case in 0..CASES {
        let mut hello = house.hello(&thief, 2);
        let mut wire_hello = match common::handshake::hello(&hello) {
            Body::ClientHello(wire_hello) => wire_hello,
            other => panic!("{other:?}"),
        };
        // One thing at least is the victim's.
        match case % 4 {
            0 => {
                wire_hello.agent_name =
                    dice.of(&["victim", "Victim", "victim ", "victim\n", "", "thief/../victim"]).to_owned()
            }
            1 => wire_hello.cluster_id = dice.of(&["other", "c/victim", "victim"]).to_owned(),
            2 => wire_hello.journal_id = dice.of(&[vec![1; 16], vec![1; 15], Vec::new(), vec![1; 17]]).into(),
            _ => {
                hello.labels =
                    [("name".to_owned(), "victim".to_owned()), ("group".to_owned(), "admin".to_owned())].into();
                wire_hello.labels = hello.labels.clone().into_iter().collect();
            }
        }
        let mut peer = house.dial(&thief, 7_000);
        peer.send(Body::ClientHello(wire_hello)).await;
        match peer.next().await.and_then(|frame| frame.body) {
            // Its own journal is its own business: it is served as who its certificate says.
            Some(Body::ServerHello(_)) => assert!(case % 4 >= 2, "served in case {case}"),
            Some(Body::Bye(_)) => {}
            other => panic!("{other:?} in case {case}"),
        }
    }
    assert_eq!(picture(&house, &victim).await, before);
    honest.nothing_waits().await;
}
