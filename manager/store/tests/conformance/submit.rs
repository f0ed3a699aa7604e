//! Accepting commands and looking at them.

use std::collections::HashSet;

use common::id::CommandId;
use common::model::{Phase, StreamName};
use store::StoreError;
use store::types::{Actor, CommandFilter, CommandPage, EventFilter, Submit};
use tokio::task::JoinSet;

use crate::world::{HOUR, Home, NOW, admin, keyed, name, only, request, submit};

pub async fn a_command_is_there_with_everything_that_was_asked_for(home: &Home) {
    home.connected("web1").await;
    let submitted = home.store.submit(submit(&["web1"])).await.unwrap();
    assert!(!submitted.replayed);
    assert_eq!(submitted.job, None);
    let command = home.command(only(&submitted)).await;
    assert_eq!(command.request, request());
    assert_eq!((command.phase, command.agent.clone(), command.attempt), (Phase::Queued, name("web1"), 1));
    assert_eq!((command.created_at, command.expires_at, command.created_by), (NOW, NOW + HOUR, admin()));
    assert_eq!((command.first_sent_at, command.end, command.cancel), (None, None, None));
    let names: Vec<StreamName> = command.streams.iter().map(|stream| stream.name).collect();
    assert_eq!(names, [StreamName::Stdout, StreamName::Stderr]);
    assert!(command.streams.iter().all(|stream| !stream.end && stream.length == 0));
    let by_uid = home.store.command_by_uid(&command.uid).await.unwrap().unwrap();
    assert_eq!(by_uid.id, command.id);
    assert_eq!(home.store.command(CommandId(999)).await.unwrap(), None);
    assert_eq!(home.store.phase_counts().await.unwrap(), [(Phase::Queued, 1)]);
}

pub async fn a_job_makes_one_command_for_each_agent_and_names_repeat_harmlessly(home: &Home) {
    for agent in ["a", "b", "c"] {
        home.connected(agent).await;
    }
    let submitted = home.store.submit(Submit { as_job: true, ..submit(&["a", "b", "a", "c"]) }).await.unwrap();
    assert_eq!(submitted.commands.len(), 3);
    let job = submitted.job.unwrap();
    let filter = CommandFilter { job: Some(job), limit: 10, ..CommandFilter::default() };
    let commands = home.store.commands(filter).await.unwrap().commands;
    let agents: Vec<&str> = commands.iter().map(|command| command.agent.as_str()).collect();
    assert_eq!(agents, ["c", "b", "a"]);
    assert!(commands.iter().all(|command| command.request == request() && command.job == Some(job)));
    assert!(matches!(home.store.submit(submit(&[])).await, Err(StoreError::Conflict { .. })));
}

pub async fn an_unknown_agent_refuses_the_whole_submit(home: &Home) {
    home.connected("a").await;
    let before = home.store.position();
    let refused = home.store.submit(submit(&["a", "ghost"])).await;
    assert!(matches!(refused, Err(StoreError::UnknownAgent(agent)) if agent == name("ghost")));
    let all = home.store.commands(CommandFilter { limit: 10, ..CommandFilter::default() }).await.unwrap();
    assert_eq!(all, CommandPage::default());
    assert_eq!(home.store.position().last_event, before.last_event);
}

pub async fn a_key_makes_repeats_the_same_and_other_requests_refused(home: &Home) {
    home.connected("a").await;
    home.connected("b").await;
    let job = Submit { as_job: true, ..keyed(&["a", "b"], "k", 1) };
    let first = home.store.submit(job.clone()).await.unwrap();
    let second = home.store.submit(job).await.unwrap();
    assert!(!first.replayed && second.replayed);
    assert_eq!((&first.commands, first.job), (&second.commands, second.job));
    assert!(matches!(home.store.submit(keyed(&["a", "b"], "k", 2)).await, Err(StoreError::KeyReused)));
    // A refused submit leaves its key unused.
    assert!(home.store.submit(keyed(&["ghost"], "later", 1)).await.is_err());
    assert!(!home.store.submit(keyed(&["a"], "later", 2)).await.unwrap().replayed);
}

pub async fn a_key_belongs_to_its_caller_and_lasts_a_day(home: &Home) {
    home.connected("a").await;
    let mine = home.store.submit(keyed(&["a"], "k", 1)).await.unwrap();
    let theirs = Submit { actor: Actor("other".to_owned()), ..keyed(&["a"], "k", 2) };
    assert!(!home.store.submit(theirs).await.unwrap().replayed);
    let last_moment = Submit { now: NOW + 24 * HOUR - 1, ..keyed(&["a"], "k", 1) };
    assert_eq!(home.store.submit(last_moment).await.unwrap().commands, mine.commands);
    let next_day = Submit { now: NOW + 24 * HOUR, ..keyed(&["a"], "k", 2) };
    assert!(!home.store.submit(next_day).await.unwrap().replayed);
}

pub async fn thousands_of_submits_at_once_are_all_there_once(home: &Home) {
    home.connected("a").await;
    let mut calls = JoinSet::new();
    // Every key is used twice; a third of the calls is wrong and must not disturb its neighbours in the same commit.
    for index in 0..2000_u32 {
        let store = home.store.clone();
        calls.spawn(async move { store.submit(keyed(&["a"], &format!("key-{}", index / 2), 1)).await.unwrap() });
        if index % 2 == 0 {
            let store = home.store.clone();
            calls.spawn(async move {
                store.submit(keyed(&["ghost"], &format!("bad-{index}"), 1)).await.map(|_| ()).unwrap_err();
                store.submit(keyed(&["a"], &format!("key-{}", index / 2), 1)).await.unwrap()
            });
        }
    }
    let mut ids = HashSet::new();
    let mut fresh = 0;
    while let Some(answer) = calls.join_next().await {
        let submitted = answer.unwrap();
        fresh += usize::from(!submitted.replayed);
        ids.insert(only(&submitted));
    }
    assert_eq!((ids.len(), fresh), (1000, 1000));
    assert_eq!(home.store.phase_counts().await.unwrap(), [(Phase::Queued, 1000)]);
    // 1000 submits and the making of the agent.
    assert_eq!(home.store.verify_audit().await.unwrap(), 1001);
}

pub async fn a_page_of_large_commands_ends_early_and_the_next_goes_on(home: &Home) {
    const MIB: usize = 1024 * 1024;
    home.connected("a").await;
    let mut expected = Vec::new();
    for _ in 0..20 {
        let mut large = submit(&["a"]);
        // Nobody sees what a command reads in a list; it is read with the row all the same.
        large.request.stdin = Some(vec![b'x'; MIB]);
        expected.push(only(&home.store.submit(large).await.unwrap()));
    }
    expected.reverse();
    for agent in [None, Some(name("a"))] {
        let (mut seen, mut pages, mut before) = (Vec::new(), Vec::new(), None);
        loop {
            let filter = CommandFilter { agent: agent.clone(), before, limit: 1_000, ..CommandFilter::default() };
            let page = home.store.commands(filter).await.unwrap();
            pages.push(page.commands.len());
            seen.extend(page.commands.iter().map(|command| command.id));
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        assert_eq!((seen, pages), (expected.clone(), vec![8, 8, 4]));
    }
    // As many as were asked for: there may be more.
    let filter = CommandFilter { limit: 2, ..CommandFilter::default() };
    assert_eq!(home.store.commands(filter).await.unwrap().next, expected.get(1).copied());
}

pub async fn lists_filter_and_go_on_behind_a_cursor(home: &Home) {
    let a = home.in_phase("a", Phase::Running).await;
    let b = home.in_phase("b", Phase::Queued).await;
    let c = home.in_phase("a", Phase::Accepted).await;
    let base = CommandFilter { limit: 10, ..CommandFilter::default() };
    let ids = async |filter: CommandFilter| -> Vec<CommandId> {
        home.store.commands(filter).await.unwrap().commands.iter().map(|command| command.id).collect()
    };
    assert_eq!(ids(base.clone()).await, [c.id, b.id, a.id]);
    assert_eq!(ids(CommandFilter { agent: Some(name("a")), ..base.clone() }).await, [c.id, a.id]);
    assert_eq!(ids(CommandFilter { agent: Some(name("ghost")), ..base.clone() }).await, []);
    assert_eq!(ids(CommandFilter { before: Some(c.id), limit: 1, ..base.clone() }).await, [b.id]);
    let phases = vec![Phase::Running, Phase::Accepted];
    assert_eq!(ids(CommandFilter { phases, before: Some(c.id), ..base.clone() }).await, [a.id]);
    assert_eq!(ids(CommandFilter { operation: Some("agent.ping".to_owned()), ..base.clone() }).await, []);
    // A name that was borne twice shows the commands of both bearers, newest first.
    home.store.remove_agent(&name("a"), &admin(), NOW).await.unwrap();
    let d = home.in_phase("a", Phase::Queued).await;
    assert_eq!(ids(CommandFilter { agent: Some(name("a")), ..base }).await, [d.id, c.id, a.id]);
}

pub async fn a_watch_and_the_events_wake_after_the_commit(home: &Home) {
    home.connected("a").await;
    let id = home.queued("a").await;
    let mut events = home.store.events_changed();
    let seen = *events.borrow_and_update();
    let mut watch = home.store.watch_command(id);
    assert_eq!(home.due("a", NOW).await.0, [id]);
    watch.changed().await;
    assert_eq!(home.command(id).await.phase, Phase::Dispatched);
    events.changed().await.unwrap();
    let newest = *events.borrow_and_update();
    assert!(newest > seen);
    assert_eq!(home.store.position().last_event, newest);
    let new = home.store.events(seen, 10, EventFilter::default()).await.unwrap();
    assert_eq!(new.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), ["command.dispatched"]);
    home.write(id, 0, b"x").await.unwrap();
    watch.changed().await;
}
