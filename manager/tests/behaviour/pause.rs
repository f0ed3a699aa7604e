//! Pausing commands and letting them go on, between service and agent; and what an agent must know of a command.

use common::id::CommandId;
use common::wire::frame::Body;
use common::wire::{self, CommandPhase, nak};
use manager::service::CancelWish;
use store::types::{Options, Pause, Request};

use crate::house::{House, request, wait_for};
use crate::peer::{Peer, item};

/// A command that its agent runs, and what it was sent.
async fn running(house: &House, peer: &mut Peer, agent: &str) -> (CommandId, wire::Command) {
    let id = house.submit(agent).await;
    let (seq, command) = peer.command().await;
    peer.accept(seq, &command).await;
    report(house, peer, id, &command, CommandPhase::Running).await;
    (id, command)
}

async fn report(house: &House, peer: &mut Peer, id: CommandId, command: &wire::Command, phase: CommandPhase) {
    let progress = wire::CommandProgress { uid: command.uid.clone(), phase: phase.into(), ..Default::default() };
    peer.send(Body::CommandProgress(progress)).await;
    let name = phase.as_str_name().to_lowercase();
    wait_for(&name, || async { (house.phase(id).await == name).then_some(()) }).await;
}

async fn told(peer: &mut Peer) -> (u64, wire::CommandPause) {
    let frame = peer.next().await.expect("a CommandPause");
    match frame.body {
        Some(Body::CommandPause(pause)) => (frame.seq, pause),
        other => panic!("expected a CommandPause, got {other:?}"),
    }
}

async fn wish(house: &House, id: CommandId) -> Option<Pause> {
    house.service.command(&house.admin, id).await.unwrap().command.pause
}

async fn settled(house: &House, id: CommandId) -> Option<Pause> {
    wait_for("an answer to the wish", || async {
        let wish = wish(house, id).await;
        (!wish.as_ref().is_some_and(|wish| wish.pending)).then_some(wish)
    })
    .await
}

fn refusal(code: nak::Code) -> Body {
    Body::Nak(wire::Nak { code: code.into(), reason: "no".to_owned() })
}

/// Protocol R-PAUSE-1.
#[tokio::test]
async fn a_command_pauses_and_goes_on() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut peer = house.connect(&identity, 1).await;
    let (id, command) = running(&house, &mut peer, "web1").await;
    let view = house.service.pause(&house.admin, id).await.unwrap();
    assert!(view.command.pause.is_some_and(|wish| wish.pending && wish.paused && wish.by.0 == "admin"));
    let (seq, first) = told(&mut peer).await;
    assert_eq!((&first.uid, first.id, first.paused, first.by.as_str()), (&command.uid, id.0, true, "admin"));
    assert_eq!(first.generation, command.generation);
    peer.reply(seq, Body::Ack(wire::Ack {})).await;
    report(&house, &mut peer, id, &command, CommandPhase::Paused).await;
    let kept = settled(&house, id).await.expect("the wish stands while the command is paused");
    assert!(kept.paused && kept.refused.is_none());
    // A repeat is the same; nothing more is told.
    house.service.pause(&house.admin, id).await.unwrap();
    peer.nothing_waits().await;
    house.service.resume(&house.admin, id).await.unwrap();
    let (seq, second) = told(&mut peer).await;
    assert!(!second.paused && second.wish > first.wish);
    peer.reply(seq, Body::Ack(wire::Ack {})).await;
    report(&house, &mut peer, id, &command, CommandPhase::Running).await;
    assert_eq!(settled(&house, id).await, None);
    peer.finish(&command, 0).await;
    peer.acked().await;
}

#[tokio::test]
async fn what_was_not_sent_or_is_over_cannot_pause() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let queued = house.submit("web1").await;
    let code = |answer: Result<_, manager::service::ServiceError>| answer.map(|_| ()).unwrap_err().code();
    assert_eq!(code(house.service.pause(&house.admin, queued).await), "not_started");
    assert_eq!(code(house.service.resume(&house.admin, queued).await), "not_started");
    assert_eq!(code(house.service.pause(&house.admin, CommandId(99)).await), "not_found");
    let mut peer = house.connect(&identity, 1).await;
    let (seq, command) = peer.command().await;
    peer.accept(seq, &command).await;
    house.service.cancel(&house.admin, queued, None, CancelWish::default()).await.unwrap();
    assert_eq!(code(house.service.pause(&house.admin, queued).await), "stopping");
    assert!(matches!(peer.body().await, Body::CommandCancel(_)));
    peer.finish(&command, 0).await;
    peer.acked().await;
    assert_eq!(code(house.service.pause(&house.admin, queued).await), "already_final");
    assert_eq!(code(house.service.resume(&house.admin, queued).await), "already_final");
    assert_eq!(wish(&house, queued).await, None);
    let reader = manager::service::Caller { scope: store::types::Scope::Read, ..house.admin.clone() };
    assert_eq!(code(house.service.pause(&reader, queued).await), "forbidden");
}

#[tokio::test]
async fn an_agent_that_was_away_hears_the_newest_wish() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut peer = house.connect(&identity, 1).await;
    let (id, command) = running(&house, &mut peer, "web1").await;
    drop(peer);
    house.service.pause(&house.admin, id).await.unwrap();
    house.service.resume(&house.admin, id).await.unwrap();
    house.service.pause(&house.admin, id).await.unwrap();
    let mut peer = house.dial(&identity, 2);
    peer.hello(&house.hello(&identity, 1)).await;
    peer.welcome().await;
    peer.settle(vec![item(&command, CommandPhase::Running)]).await;
    let (_, pause) = told(&mut peer).await;
    assert!(pause.paused);
    // It leaves without an answer, so the next session hears it again.
    drop(peer);
    let mut peer = house.dial(&identity, 3);
    peer.hello(&house.hello(&identity, 1)).await;
    peer.welcome().await;
    peer.settle(vec![item(&command, CommandPhase::Paused)]).await;
    let (seq, again) = told(&mut peer).await;
    assert_eq!(again, pause);
    peer.reply(seq, Body::Ack(wire::Ack {})).await;
    assert!(settled(&house, id).await.is_some_and(|wish| wish.paused));
    peer.nothing_waits().await;
}

#[tokio::test]
async fn a_wish_outlives_a_restart_of_the_manager() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut peer = house.connect(&identity, 1).await;
    let (id, command) = running(&house, &mut peer, "web1").await;
    drop(peer);
    house.service.pause(&house.admin, id).await.unwrap();
    let house = house.restarted().await;
    assert!(wish(&house, id).await.is_some_and(|wish| wish.pending));
    let mut peer = house.dial(&identity, 2);
    peer.hello(&house.hello(&identity, 1)).await;
    peer.welcome().await;
    peer.settle(vec![item(&command, CommandPhase::Running)]).await;
    let (seq, pause) = told(&mut peer).await;
    assert!(pause.paused);
    peer.reply(seq, Body::Ack(wire::Ack {})).await;
    assert!(settled(&house, id).await.is_some_and(|wish| wish.paused));
}

#[tokio::test]
async fn an_agent_that_cannot_pause_is_not_asked_again() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut peer = house.connect(&identity, 1).await;
    let (id, _) = running(&house, &mut peer, "web1").await;
    house.service.pause(&house.admin, id).await.unwrap();
    let (seq, _) = told(&mut peer).await;
    peer.reply(seq, refusal(nak::Code::Unsupported)).await;
    let shown = settled(&house, id).await.expect("the refusal is shown");
    assert_eq!(shown.refused.as_deref(), Some("unsupported"));
    assert_eq!(house.phase(id).await, "running", "the command itself is not refused");
    peer.nothing_waits().await;
    house.service.pause(&house.admin, id).await.unwrap();
    let (seq, _) = told(&mut peer).await;
    peer.reply(seq, refusal(nak::Code::Unknown)).await;
    assert_eq!(settled(&house, id).await, None);
    peer.nothing_waits().await;
}

#[tokio::test]
async fn a_wish_for_a_command_on_its_way_follows_the_answer_to_it() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut peer = house.connect(&identity, 1).await;
    let id = house.submit("web1").await;
    let (seq, command) = peer.command().await;
    house.service.pause(&house.admin, id).await.unwrap();
    peer.nothing_waits().await;
    peer.accept(seq, &command).await;
    let (_, pause) = told(&mut peer).await;
    assert_eq!(pause.uid, command.uid);
}

#[tokio::test]
async fn a_wish_reaches_the_agent_of_its_command_only() {
    let house = House::build().await;
    let (one, two) = (house.agent("web1").await, house.agent("web2").await);
    let mut first = house.connect(&one, 1).await;
    let mut second = house.connect(&two, 2).await;
    let (id, command) = running(&house, &mut first, "web1").await;
    let (other, _) = running(&house, &mut second, "web2").await;
    house.service.pause(&house.admin, id).await.unwrap();
    let (seq, pause) = told(&mut first).await;
    assert_eq!(pause.uid, command.uid);
    second.nothing_waits().await;
    // The number of the frame is that of another session: an answer to it says nothing here.
    second.reply(seq, Body::Ack(wire::Ack {})).await;
    second.nothing_waits().await;
    assert!(wish(&house, id).await.is_some_and(|wish| wish.pending));
    first.reply(seq, Body::Ack(wire::Ack {})).await;
    assert!(settled(&house, id).await.is_some());
    assert_eq!(wish(&house, other).await, None);
}

#[tokio::test]
async fn options_travel_and_name_what_they_need() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut peer = house.connect(&identity, 1).await;
    let options = Options {
        umask: Some(0o027),
        nice: Some(-5),
        oom_score: Some(500),
        keep_strays: true,
        stop_signal: Some(2),
        stop_only_main: true,
        grace: Some(std::time::Duration::from_millis(200)),
    };
    let asked = Request {
        operation: "script.run".to_owned(),
        args: r#"{"content":"id","unless":"false"}"#.to_owned(),
        user: Some("nobody".to_owned()),
        options,
        ..Request::default()
    };
    start(&house, asked).await;
    let (_, command) = peer.command().await;
    assert_eq!((command.umask, command.has_umask, command.nice, command.oom_score), (0o027, true, -5, 500));
    assert_eq!((command.keep_strays, command.stop_signal, command.stop_only_main), (true, 2, true));
    assert_eq!((command.grace_ms, command.has_grace, command.user.as_str()), (200, true, "nobody"));
    assert_eq!(command.needs, ["guards", "script", "options", "keep_strays"]);
    start(&house, request()).await;
    let (_, plain) = peer.command().await;
    assert!(plain.needs.is_empty() && !plain.has_umask && !plain.has_grace, "{plain:?}");
    // The word of a guard in what is run is not a guard.
    start(&house, Request { args: r#"{"run":["creates"]}"#.to_owned(), ..request() }).await;
    assert!(peer.command().await.1.needs.is_empty());
}

async fn start(house: &House, request: Request) -> CommandId {
    let name = "web1".parse().unwrap();
    house.service.start(&house.admin, name, request, None, None).await.unwrap().command.id
}

/// Protocol R-CMD-11.
#[tokio::test]
async fn an_agent_is_not_sent_what_it_would_run_otherwise_than_meant() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut peer = house.dial(&identity, 1);
    let mut old = house.hello(&identity, 1);
    old.capabilities = vec!["command.run".to_owned(), "guards".to_owned()];
    peer.hello(&old).await;
    peer.welcome().await;
    peer.settle(Vec::new()).await;
    let options = Options { keep_strays: true, ..Options::default() };
    let refused = start(&house, Request { options, ..request() }).await;
    wait_for("refused", || async { (house.phase(refused).await == "refused").then_some(()) }).await;
    let end = house.service.command(&house.admin, refused).await.unwrap().command.end.unwrap();
    let error = end.error.unwrap();
    assert_eq!(error.code, "unsupported");
    assert!(error.text.contains("`keep_strays`"), "{}", error.text);
    peer.nothing_waits().await;
    start(&house, Request { args: r#"{"run":["true"],"creates":"/x"}"#.to_owned(), ..request() }).await;
    assert_eq!(peer.command().await.1.needs, ["guards"]);
}

#[tokio::test]
async fn a_waiting_command_tells_why_and_where_it_stands() {
    let house = House::build().await;
    let identity = house.agent("web1").await;
    let mut peer = house.connect(&identity, 1).await;
    let id = house.submit("web1").await;
    let (seq, command) = peer.command().await;
    peer.accept(seq, &command).await;
    let waits = wire::CommandProgress {
        uid: command.uid.clone(),
        phase: CommandPhase::Waiting.into(),
        current: 3,
        total: 17,
        text: "parallel_limit".to_owned(),
        ..Default::default()
    };
    peer.send(Body::CommandProgress(waits)).await;
    wait_for("waiting", || async { (house.phase(id).await == "waiting").then_some(()) }).await;
    let shown = house.service.command(&house.admin, id).await.unwrap().command;
    assert_eq!(shown.waiting.as_deref(), Some("parallel_limit"));
    let progress = shown.progress.unwrap();
    assert_eq!((progress.current, progress.total, progress.text.as_str()), (3, 17, ""));
    // It may be paused where it waits.
    house.service.pause(&house.admin, id).await.unwrap();
    assert!(told(&mut peer).await.1.paused);
    report(&house, &mut peer, id, &command, CommandPhase::Paused).await;
    let shown = house.service.command(&house.admin, id).await.unwrap().command;
    assert_eq!((shown.waiting, shown.progress), (None, None));
}
