//! The right to a command, weighed again before it is sent.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use common::id::{CommandId, Generation, StorePosition};
use common::model::Phase;
use store::types::{Authority, Judge, JudgeAsk, NewJoinToken, Request, Submit, Via, everybody};

use crate::joins::{claim, groups, token};
use crate::world::{HOUR, Home, NOW, RESEND, admin, keyed, kinds, name, only, request, submit, taker};

fn by(actor: &str) -> Authority {
    Authority { actor: actor.to_owned(), via: Via::Token { id: format!("id-of-{actor}") } }
}

fn submitted_by(actor: &str, agents: &[&str]) -> Submit {
    Submit { authority: Some(by(actor)), ..submit(agents) }
}

/// A judge that lets everybody but this one.
fn all_but(actor: &'static str) -> Judge {
    Arc::new(move |ask| ask.authority.as_ref().is_none_or(|authority| authority.actor != actor))
}

/// A judge that lets everybody, and what it was asked.
fn listening() -> (Judge, Arc<Mutex<Vec<JudgeAsk>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&asked);
    let judge: Judge = Arc::new(move |ask| {
        heard.lock().unwrap().push(ask.clone());
        true
    });
    (judge, asked)
}

async fn refused(home: &Home, id: CommandId) {
    let command = home.command(id).await;
    assert_eq!(command.phase, Phase::Refused);
    assert_eq!(command.first_sent_at, None);
    assert_eq!(command.end.unwrap().error.unwrap().code, "not_allowed");
    let events = home.store.events(0, 10_000, Default::default()).await.unwrap();
    assert!(events.iter().any(|event| event.command == Some(id) && event.kind == "command.refused"));
    let rows = home.store.audit_rows(0, 10_000).await.unwrap();
    let told = rows.iter().filter(|row| row.action == "command.dispatch" && row.object == id.to_string());
    assert_eq!(told.map(|row| row.outcome.as_str()).collect::<Vec<_>>(), ["refused"]);
}

pub async fn the_judge_is_asked_by_which_right_on_which_agent_as_whom(home: &Home) {
    home.store.join_token_create(NewJoinToken { uses: 2, ..token("j1") }, &admin(), NOW).await.unwrap();
    for (key, agent) in [(1, "web1"), (2, "web2")] {
        home.store.join(claim("j1", key, agent), groups).await.unwrap().unwrap();
    }
    let generation = home.store.agent(&name("web1")).await.unwrap().unwrap().generation;
    let vias =
        [Via::Token { id: "t".into() }, Via::Certificate { generation: Generation(7) }, Via::Local { uid: 1000 }];
    let mut ids = Vec::new();
    for via in vias.clone() {
        let authority = Some(Authority { actor: "alice".into(), via });
        let request = Request { user: Some("deploy".into()), ..request() };
        ids.push(only(&home.store.submit(Submit { authority, request, ..submit(&["web1"]) }).await.unwrap()));
    }
    // A job keeps the request once, and the right with each of its commands.
    let job = Submit { as_job: true, ..submitted_by("bob", &["web1", "web2"]) };
    home.store.submit(job).await.unwrap();
    home.queued("web1").await;
    let (judge, asked) = listening();
    assert_eq!(home.store.refuse_queued(&judge, NOW).await.unwrap(), []);
    let queued = std::mem::take(&mut *asked.lock().unwrap());
    assert_eq!(queued.len(), 6);
    let due = home.store.due(taker("web1", generation, 100), &judge, NOW).await.unwrap();
    assert_eq!(kinds(&due).0.len(), 5);
    let sent = asked.lock().unwrap().clone();
    let ask = |authority, user: Option<&str>| JudgeAsk {
        authority,
        agent: name("web1"),
        groups: vec!["web".to_owned()],
        operation: "command.run".to_owned(),
        user: user.map(str::to_owned),
    };
    let alice = |via| ask(Some(Authority { actor: "alice".into(), via }), Some("deploy"));
    let mut expected: Vec<JudgeAsk> = vias.into_iter().map(alice).collect();
    expected.extend([ask(Some(by("bob")), None), ask(None, None)]);
    assert_eq!(sent, expected);
    assert!(expected.iter().all(|ask| queued.contains(ask)));
    assert!(queued.contains(&JudgeAsk { agent: name("web2"), ..ask(Some(by("bob")), None) }));
}

pub async fn what_may_not_be_sent_is_refused_and_others_take_its_place(home: &Home) {
    let (generation, _) = home.connected("a").await;
    let mut mine = Vec::new();
    let mut theirs = Vec::new();
    for _ in 0..5 {
        mine.push(only(&home.store.submit(submitted_by("mallory", &["a"])).await.unwrap()));
        theirs.push(only(&home.store.submit(submitted_by("alice", &["a"])).await.unwrap()));
    }
    // Room for two; the first refused ones stand before them.
    let due = home.store.due(taker("a", generation, 2), &all_but("mallory"), NOW).await.unwrap();
    assert_eq!(kinds(&due).0, theirs[..2]);
    refused(home, mine[0]).await;
    let due = home.store.due(taker("a", generation, 100), &all_but("mallory"), NOW).await.unwrap();
    assert_eq!(kinds(&due).0, theirs[2..]);
    for id in &mine {
        refused(home, *id).await;
    }
    // Nothing waits any more, and who gets the right back does not get the commands back.
    assert_eq!(home.store.due_agents(RESEND, NOW).await.unwrap(), []);
    assert_eq!(home.due("a", NOW).await.0, []);
    home.store.verify_audit().await.unwrap();
}

pub async fn what_was_sent_once_is_not_weighed_again(home: &Home) {
    let (generation, _) = home.connected("a").await;
    let id = only(&home.store.submit(submitted_by("mallory", &["a"])).await.unwrap());
    home.store.due(taker("a", generation, 10), &everybody(), NOW).await.unwrap();
    let again = home.store.due(taker("a", generation, 10), &all_but("mallory"), NOW + 60_000).await.unwrap();
    assert_eq!(kinds(&again).0, [id]);
    assert_eq!(home.store.refuse_queued(&all_but("mallory"), NOW).await.unwrap(), []);
    assert_eq!(home.command(id).await.phase, Phase::Dispatched);
}

pub async fn a_command_for_a_session_is_weighed_as_well(home: &Home) {
    let (generation, _) = home.connected("a").await;
    let (deliver, mut delivered) = tokio::sync::mpsc::unbounded_channel();
    let submit = Submit { authority: Some(by("mallory")), ..keyed(&["a"], "k", 1) };
    let started = home
        .store
        .submit_and_take(submit, taker("a", generation, 1), &all_but("mallory"), move |due| deliver.send(due).unwrap())
        .await
        .unwrap();
    assert!(started.command.is_none() && delivered.recv().await.unwrap().is_empty());
    refused(home, only(&started.submitted)).await;
}

pub async fn queued_commands_are_refused_the_moment_the_right_goes(home: &Home) {
    home.connected("a").await;
    home.store.ensure_agent(&name("away"), &admin(), NOW).await.unwrap();
    let mut mine = BTreeSet::new();
    for agent in ["a", "away", "a"] {
        mine.insert(only(&home.store.submit(submitted_by("mallory", &[agent])).await.unwrap()));
    }
    mine.extend(
        home.store.submit(Submit { as_job: true, ..submitted_by("mallory", &["a", "away"]) }).await.unwrap().commands,
    );
    let alice = only(&home.store.submit(submitted_by("alice", &["a"])).await.unwrap());
    let system = home.queued("a").await;
    // Also what waits since the store was restored: a release must not let it go.
    home.store.declare_restored(&name("a"), StorePosition(0), NOW).await.unwrap();
    let gone = home.store.refuse_queued(&all_but("mallory"), NOW + 1).await.unwrap();
    assert_eq!(gone.iter().copied().collect::<BTreeSet<_>>(), mine);
    assert!(gone.is_sorted());
    for id in mine {
        refused(home, id).await;
        assert_eq!(home.command(id).await.finished_at, Some(NOW + 1));
    }
    assert_eq!(home.store.refuse_queued(&all_but("mallory"), NOW).await.unwrap(), []);
    for id in [alice, system] {
        assert_eq!(home.command(id).await.phase, Phase::Queued);
    }
}

pub async fn thousands_are_refused_and_none_is_sent_meanwhile(home: &Home) {
    let (generation, _) = home.connected("a").await;
    for _ in 0..1_200 {
        home.store.submit(Submit { expires_at: NOW + HOUR, ..submitted_by("mallory", &["a"]) }).await.unwrap();
    }
    let alice = only(&home.store.submit(submitted_by("alice", &["a"])).await.unwrap());
    let judge = all_but("mallory");
    let asking = async {
        let mut sent = Vec::new();
        for _ in 0..20 {
            let due = home.store.due(taker("a", generation, 10), &judge, NOW).await.unwrap();
            sent.extend(kinds(&due).0);
        }
        sent
    };
    let (sent, refused) = tokio::join!(asking, home.store.refuse_queued(&judge, NOW));
    assert_eq!(sent, [alice]);
    assert!(refused.unwrap().len() <= 1_200);
    let counts = home.store.phase_counts().await.unwrap();
    assert!(counts.contains(&(Phase::Refused, 1_200)) && counts.contains(&(Phase::Dispatched, 1)), "{counts:?}");
}
