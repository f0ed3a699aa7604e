//! Who is let in, who is thrown out, and what a session may say.

use common::id::Generation;
use common::wire::bye::Code;
use common::wire::frame::Body;
use common::wire::{self, nak};
use store::types::Scope;

use crate::house::{House, wait_for};

/// Protocol R-AUTH-4.
#[tokio::test]
async fn strangers_with_a_certificate_learn_a_code_and_no_more() {
    let house = House::build().await;
    let known = house.agent("web1").await;
    let unknown = house.identity("web9", Generation(1));
    let older = house.identity("web1", Generation(known.generation.0 + 7));
    for identity in [&unknown, &older] {
        let mut peer = house.dial(identity, 1);
        peer.hello(&house.hello(identity, 1)).await;
        assert_eq!(peer.bye().await.0, Code::AuthFailed);
    }
    let mut liar = house.dial(&known, 2);
    liar.hello(&house.hello(&unknown, 1)).await;
    assert_eq!(liar.bye().await.0, Code::AuthFailed);
    assert_eq!(house.registry.count(), 0);
}

#[tokio::test]
async fn a_reconnect_of_the_same_life_supersedes_the_older_session() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut old = house.connect(&identity, 1).await;
    let mut new = house.connect(&identity, 1).await;
    assert_eq!(old.bye().await.0, Code::Superseded);
    let id = house.submit("web1").await;
    let (_, command) = new.command().await;
    assert_eq!(command.id, id.0);
    assert_eq!(house.registry.count(), 1);
}

/// Protocol R-SESSION-5.
#[tokio::test]
async fn a_cloned_pair_is_quarantined_until_an_operator_accepts() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut first = house.connect(&identity, 1).await;
    let mut clone = house.dial(&identity, 2);
    clone.hello(&house.hello(&identity, 2)).await;
    let frame = first.next().await.expect("a ping");
    assert!(matches!(frame.body, Some(Body::Ping(_))));
    first.reply(frame.seq, Body::Pong(wire::Pong::default())).await;
    assert_eq!(clone.bye().await.0, Code::Banned);
    assert_eq!(first.bye().await.0, Code::Banned);
    let row = house.service.agent(&house.admin, &identity.name).await.unwrap().agent;
    let reason = row.quarantined.expect("a reason");
    assert!(reason.contains("10.0.0.1:1001") && reason.contains("10.0.0.1:2"), "{reason}");
    let mut again = house.dial(&identity, 3);
    again.hello(&house.hello(&identity, 1)).await;
    assert_eq!(again.bye().await.0, Code::Banned);
    house.service.accept_agent(&house.admin, &identity.name).await.unwrap();
    house.connect(&identity, 1).await;
}

/// Protocol R-SESSION-5.
#[tokio::test]
async fn a_session_of_an_earlier_bearer_is_no_rival() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut earlier = house.connect(&identity, 1).await;
    // As if nobody had come to close the session behind the removal.
    house.store.remove_agent(&identity.name, &house.admin.actor, crate::house::now_ms()).await.unwrap();
    let next = house.agent("web1").await;
    assert!(next.generation > identity.generation);
    let ping = common::limits::RIVAL_PING;
    let mut newcomer = tokio::time::timeout(ping, house.connect(&next, 2)).await.expect("nobody is asked");
    assert_eq!(earlier.bye().await.0, common::wire::bye::Code::Superseded);
    newcomer.nothing_waits().await;
}

#[tokio::test]
async fn a_rival_that_does_not_answer_is_superseded() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut dead = house.connect(&identity, 1).await;
    let mut new = house.dial(&identity, 2);
    new.hello(&house.hello(&identity, 2)).await;
    // A frame that was under way before is no proof of life.
    dead.send(Body::Pong(wire::Pong::default())).await;
    new.welcome().await;
    assert_eq!(dead.bye().await.0, Code::Superseded);
    let row = house.service.agent(&house.admin, &identity.name).await.unwrap();
    assert_eq!(row.agent.quarantined, None);
}

#[tokio::test]
async fn removing_an_agent_cuts_its_session() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut peer = house.connect(&identity, 1).await;
    house.service.remove_agent(&house.admin, &identity.name).await.unwrap();
    assert_eq!(peer.bye().await.0, Code::Banned);
    let renewed = house.agent("web1").await;
    assert!(renewed.generation > identity.generation, "generations are never used twice");
}

#[tokio::test]
async fn a_frame_in_the_wrong_phase_ends_the_session() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut early = house.dial(&identity, 1);
    early.send(Body::Inventory(wire::Inventory::default())).await;
    assert_eq!(early.bye().await.0, Code::ProtocolError);
    let hello = house.hello(&identity, 1);
    let mut twice = house.connect(&identity, 1).await;
    twice.hello(&hello).await;
    assert_eq!(twice.bye().await.0, Code::ProtocolError);
    let mut wrong_side = house.connect(&identity, 1).await;
    wrong_side.send(Body::ResultAck(wire::ResultAck::default())).await;
    assert_eq!(wrong_side.bye().await.0, Code::ProtocolError);
    let mut again = house.connect(&identity, 1).await;
    let item = wire::InventoryItem { uid: vec![1; 16].into(), phase: 1, ..Default::default() };
    again.send(Body::Inventory(wire::Inventory { items: vec![item], last: true })).await;
    assert_eq!(again.bye().await.0, Code::ProtocolError, "an inventory is said once");
}

/// Protocol R-RES-6.
#[tokio::test]
async fn a_malformed_message_about_one_command_is_refused_and_the_session_goes_on() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut peer = house.connect(&identity, 1).await;
    let id = house.submit("web1").await;
    let (seq, command) = peer.command().await;
    let good = crate::peer::result(&command, 0);
    let ragged = wire::StreamEnd {
        stream: wire::Stream::Stdout.into(),
        segments: vec![wire::SegmentHash { hash: vec![0; 31].into(), ..Default::default() }],
        ..Default::default()
    };
    let malformed = [
        Body::CommandResult(wire::CommandResult { outcome: 0, ..good.clone() }),
        Body::CommandResult(wire::CommandResult { outcome: 99, ..good.clone() }),
        Body::CommandResult(wire::CommandResult { uid: vec![1; 15].into(), ..good.clone() }),
        Body::CommandResult(wire::CommandResult { value: vec![0xff].into(), ..good.clone() }),
        Body::CommandResult(wire::CommandResult { streams: vec![ragged], ..good.clone() }),
        Body::CommandProgress(wire::CommandProgress { uid: command.uid.clone(), ..Default::default() }),
        Body::CommandAck(wire::CommandAck { uid: command.uid.clone(), ..Default::default() }),
        Body::CommandOutput(wire::CommandOutput { gap: 1, ..crate::peer::output(&command, 0, b"x") }),
        Body::CommandOutput(wire::CommandOutput { uid: vec![1].into(), ..crate::peer::output(&command, 0, b"x") }),
    ];
    for body in malformed {
        let what = format!("{body:?}");
        let seq = peer.send(body).await;
        let frame = peer.next().await.expect("an answer");
        let invalid = matches!(&frame.body, Some(Body::Nak(nak)) if nak.code() == nak::Code::Invalid);
        assert!(invalid && frame.reply_to == seq, "{what}: {frame:?}");
    }
    assert_eq!(house.phase(id).await, "dispatched");
    peer.accept(seq, &command).await;
    let unknown_hash = wire::StreamEnd {
        stream: wire::Stream::Stdout.into(),
        segments: vec![wire::SegmentHash::default()],
        ..Default::default()
    };
    peer.send(Body::CommandResult(wire::CommandResult { streams: vec![unknown_hash], ..good })).await;
    assert_eq!(peer.acked().await.to_wire(), command.uid);
    assert_eq!(house.phase(id).await, "succeeded");
}

#[tokio::test]
async fn nothing_is_concluded_from_an_inventory_with_a_malformed_line() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut peer = house.connect(&identity, 1).await;
    let (named, unnamed) = (house.submit("web1").await, house.submit("web1").await);
    let mut commands = Vec::new();
    for _ in 0..2 {
        let (seq, command) = peer.command().await;
        peer.accept(seq, &command).await;
        commands.push(command);
    }
    wait_for("both accepted", || async {
        (house.phase(named).await == "accepted" && house.phase(unnamed).await == "accepted").then_some(())
    })
    .await;
    drop(peer);
    let [first, second] = commands.as_slice() else { panic!("two commands") };
    let no_phase = wire::InventoryItem { phase: 0, ..crate::peer::item(first, wire::CommandPhase::Running) };
    let no_uid =
        wire::InventoryItem { uid: vec![1; 3].into(), ..crate::peer::item(second, wire::CommandPhase::Running) };
    let mut peer = house.dial(&identity, 2000);
    peer.hello(&house.hello(&identity, 1)).await;
    peer.welcome().await;
    assert!(peer.settle(vec![no_phase, no_uid]).await.is_empty());
    peer.nothing_waits().await;
    assert_eq!((house.phase(named).await.as_str(), house.phase(unnamed).await.as_str()), ("accepted", "accepted"));
}

/// Protocol R-INV-6.
#[tokio::test]
async fn an_agent_that_remembers_more_than_the_store_starts_a_new_life() {
    let house = House::build().await;
    let (one, two) = (house.agent("web1").await, house.agent("web2").await);
    let waiting = house.submit("web1").await;
    let mut bystander = house.connect(&two, 2).await;
    let before = house.store.identity().incarnation;
    let mut params = house.hello(&one, 1);
    params.store_position += 1_000;
    let mut peer = house.dial(&one, 1);
    peer.hello(&params).await;
    let welcome = peer.welcome().await;
    assert!(welcome.incarnation > before && welcome.store_position.0 > params.store_position);
    assert_eq!(bystander.bye().await.0, Code::Draining);
    peer.settle(Vec::new()).await;
    peer.nothing_waits().await;
    let view = house.service.command(&house.admin, waiting).await.unwrap();
    assert_eq!(view.command.waiting.as_deref(), Some("restored"));
    let later = house.submit("web1").await;
    assert!(later.0 > waiting.0 + 1_000, "ids of the lost life are never used again");
    assert_eq!(peer.command().await.1.id, later.0);
    house.service.release(&house.admin, waiting).await.unwrap();
    assert_eq!(peer.command().await.1.id, waiting.0);
}

#[tokio::test]
async fn an_agent_of_a_later_life_also_starts_a_new_one_but_only_once() {
    let house = House::build().await;
    let (one, two) = (house.agent("web1").await, house.agent("web2").await);
    let before = house.store.identity().incarnation;
    let mut params = house.hello(&one, 1);
    params.incarnation += 5;
    let mut peer = house.dial(&one, 1);
    peer.hello(&params).await;
    let first = peer.welcome().await.incarnation;
    assert!(first > before);
    let mut bystander = house.connect(&two, 2).await;
    params.incarnation = u64::MAX;
    let mut again = house.dial(&one, 1);
    again.hello(&params).await;
    assert_eq!(again.welcome().await.incarnation, first);
    bystander.nothing_waits().await;
}

#[tokio::test]
async fn an_unknown_frame_is_refused_by_name_and_the_session_lives() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut peer = house.connect(&identity, 1).await;
    peer.raw(&wire::Frame { seq: 77, ..Default::default() }).await;
    let frame = peer.next().await.expect("an answer");
    assert!(matches!(frame.body, Some(Body::Nak(nak)) if nak.code() == nak::Code::Unsupported && frame.reply_to == 77));
    peer.raw(&wire::Frame { seq: 78, may_ignore: true, ..Default::default() }).await;
    peer.nothing_waits().await;
}

/// Protocol R-INV-2.
#[tokio::test]
async fn no_command_is_sent_before_the_last_page_is_answered() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let earlier = house.submit("web1").await;
    let mut peer = house.dial(&identity, 1);
    peer.hello(&house.hello(&identity, 1)).await;
    peer.welcome().await;
    let seq = peer.send(Body::Inventory(wire::Inventory::default())).await;
    let frame = peer.next().await.expect("a Reconcile");
    let more = matches!(&frame.body, Some(Body::Reconcile(answer)) if !answer.last);
    assert!(more && frame.reply_to == seq, "{frame:?}");
    let later = house.submit("web1").await;
    peer.nothing_waits().await;
    assert!(peer.settle(Vec::new()).await.is_empty());
    let mut sent = [peer.command().await.1.id, peer.command().await.1.id];
    sent.sort_unstable();
    assert_eq!(sent, [earlier.0, later.0]);
}

/// Protocol R-LIVE-2.
#[tokio::test]
async fn pings_and_their_answers_carry_the_clock_and_pings_the_position_of_the_store() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut peer = house.connect(&identity, 1).await;
    let before = common::clock::unix_ms();
    let seq = peer.send(Body::Ping(wire::Ping::default())).await;
    let frame = peer.next().await.expect("a Pong");
    let told = matches!(&frame.body, Some(Body::Pong(pong)) if pong.clock_ms >= before);
    assert!(told && frame.reply_to == seq, "{frame:?}");
    // Another life of the same name makes the manager ask whether this one is there.
    let mut rival = house.dial(&identity, 2);
    rival.hello(&house.hello(&identity, 2)).await;
    let Body::Ping(ping) = peer.body().await else { panic!("a Ping") };
    assert!((before..=common::clock::unix_ms()).contains(&ping.clock_ms), "{ping:?}");
    assert!((1..=house.store.position().position.0).contains(&ping.store_position), "{ping:?}");
}

#[tokio::test]
async fn a_stopping_manager_says_goodbye_and_takes_nothing_new() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut peer = house.connect(&identity, 1).await;
    house.service.drain();
    house.registry.close_all(&manager::registry::Closing::draining("stop", std::time::Duration::from_secs(1)));
    assert_eq!(peer.bye().await.0, Code::Draining);
    let mut late = house.dial(&identity, 1);
    late.hello(&house.hello(&identity, 1)).await;
    assert_eq!(late.bye().await.0, Code::Draining);
    let name = identity.name.clone();
    let refused = house.service.submit(&house.admin, vec![name], crate::house::request(), None, false, None).await;
    assert_eq!(refused.unwrap_err().code(), "draining");
}

#[tokio::test]
async fn a_revoked_token_stops_to_work() {
    let house = House::build().await;
    let (token, text) = house.service.token_new(&house.admin, "ci", Scope::Run, None, None).await.unwrap();
    let caller = house.service.authenticate(&text).await.unwrap().expect("a caller");
    assert_eq!((caller.actor.0.as_str(), caller.scope), ("ci", Scope::Run));
    let mut wrong = text.clone();
    wrong.pop();
    wrong.push(if text.ends_with('0') { '1' } else { '0' });
    assert_eq!(house.service.authenticate(&wrong).await.unwrap(), None);
    assert!(house.service.tokens(&caller).await.is_err(), "only an admin sees tokens");
    house.service.token_revoke(&house.admin, &token.id).await.unwrap();
    assert_eq!(house.service.authenticate(&text).await.unwrap(), None);
}

#[tokio::test]
async fn a_drained_agent_gets_nothing_new_until_it_is_back() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut peer = house.connect(&identity, 1).await;
    house.service.set_drained(&house.admin, &identity.name, true).await.unwrap();
    let id = house.submit("web1").await;
    wait_for("queued", || async { (house.phase(id).await == "queued").then_some(()) }).await;
    peer.nothing_waits().await;
    house.service.set_drained(&house.admin, &identity.name, false).await.unwrap();
    assert_eq!(peer.command().await.1.id, id.0);
}
