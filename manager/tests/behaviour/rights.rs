//! Rights where commands meet their agents: weighed when they are asked for, and again when they are sent.

use std::collections::BTreeMap;
use std::time::Duration;

use common::id::CommandId;
use common::model::Phase;
use manager::service::Caller;
use manager::service::site::Push;
use store::types::{Request, Scope};

use crate::house::House;

const ROLES: &str = "roles: {r: [{may: [command.run, command.read], on: '*', as: root}]}\n";

async fn site(house: &House, roles: &str) {
    let files = BTreeMap::from([("roles.yml".to_owned(), roles.as_bytes().to_vec())]);
    house.service.site_push(&house.admin, Push { files, ..Push::default() }).await.unwrap();
}

/// A caller with a token of that role.
async fn caller(house: &House, name: &str) -> (Caller, String) {
    let roles = Some(vec!["r".to_owned()]);
    let (token, text) = house.service.token_new(&house.admin, name, Scope::Run, roles, None).await.unwrap();
    (house.service.authenticate(&text).await.unwrap().unwrap(), token.id)
}

async fn ping(house: &House, caller: &Caller, agent: &str) -> CommandId {
    let request = Request { operation: "agent.ping".to_owned(), args: "{}".to_owned(), ..Request::default() };
    let agents = vec![agent.parse().unwrap()];
    house.service.submit(caller, agents, request, None, false, None).await.unwrap().commands[0]
}

async fn phase(house: &House, id: CommandId) -> Phase {
    house.store.command(id).await.unwrap().unwrap().phase
}

#[tokio::test]
async fn a_command_whose_right_ended_is_refused_at_once_and_others_wait_on() {
    let house = House::build().await;
    house.agent("web1").await;
    site(&house, ROLES).await;
    let ((alice, alices), (bob, _)) = (caller(&house, "alice").await, caller(&house, "bob").await);
    let (first, second, third) = (
        ping(&house, &alice, "web1").await,
        ping(&house, &bob, "web1").await,
        ping(&house, &house.admin, "web1").await,
    );
    house.service.token_revoke(&house.admin, &alices).await.unwrap();
    let phases = [phase(&house, first).await, phase(&house, second).await, phase(&house, third).await];
    assert_eq!(phases, [Phase::Refused, Phase::Queued, Phase::Queued]);
    site(&house, "roles: {r: [{may: command.run, on: db1, as: root}]}\n").await;
    let phases = [phase(&house, second).await, phase(&house, third).await];
    assert_eq!(phases, [Phase::Refused, Phase::Queued]);
    let row = house.store.command(second).await.unwrap().unwrap();
    assert_eq!(row.end.and_then(|end| end.error).map(|error| error.code).as_deref(), Some("not_allowed"));
}

#[tokio::test]
async fn rights_and_what_waits_are_the_same_after_a_restart() {
    let house = House::build().await;
    house.agent("web1").await;
    site(&house, ROLES).await;
    let (alice, alices) = caller(&house, "alice").await;
    let (bob, _) = caller(&house, "bob").await;
    let (first, second) = (ping(&house, &alice, "web1").await, ping(&house, &bob, "web1").await);
    // The token goes without anybody being told, as if the manager had died between the row and the judgement.
    house.store.token_revoke(&alices, &house.admin.actor, 1).await.unwrap();
    assert_eq!(phase(&house, first).await, Phase::Queued);
    let house = house.restarted().await;
    assert_eq!(house.service.rights().revision(), 1);
    assert!(house.service.rights().site().roles().rules("r").is_some());
    let waited = house.service.wait_command(&house.admin, first, Duration::from_secs(20)).await.unwrap();
    assert_eq!(waited.command.phase, Phase::Refused);
    assert_eq!(phase(&house, second).await, Phase::Queued);
    assert!(house.service.agents(&alice, None, None, 10).await.is_err(), "a caller that was kept is worth nothing");
}
