//! Guards over HTTP on each rung: what is not needed is not run, what is needed runs once, and a guard is as easily
//! stopped as what stands behind it.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use testkit::effects::Effects;
use testkit::{House, soon, survivors, web};

use super::rungs::{AGENT, ALL, house, isolation};

/// Deaf to TERM, with somebody in a session of his own; says by a file that all of it stands.
fn deaf(ready: &std::path::Path) -> String {
    format!("trap '' TERM; (setsid sleep 1000 &); touch {}; while :; do sleep 1000; done", ready.display())
}

struct Ward {
    house: House,
    effects: Effects,
    rung: &'static str,
}

impl Ward {
    async fn on(rung: &'static str) -> anyhow::Result<Option<Self>> {
        let Some(house) = house(rung, "guards").await? else { return Ok(None) };
        let effects = Effects::create(house.folder().join("effects"))?;
        Ok(Some(Self { house, effects, rung }))
    }

    /// Starts a line that leaves `tag`, behind guards; other keys of the request come from `more`.
    async fn start(&self, tag: &str, guards: &Value, more: &Value) -> anyhow::Result<u64> {
        let mut args = json!({"shell": format!("{}; echo ran", self.effects.line(tag))});
        merge(&mut args, guards);
        self.post(json!({"operation": "command.run", "args": args}), more).await
    }

    async fn post(&self, mut body: Value, more: &Value) -> anyhow::Result<u64> {
        merge(&mut body, &json!({"env": {survivors::MARK: self.house.mark()}}));
        merge(&mut body, more);
        let path = format!("/agents/{AGENT}/commands");
        let answer = web::call(&self.house, "POST", &path, body.to_string().as_bytes()).await?;
        ensure!(answer.status == 202, "{answer:?}");
        answer.json().get("id").and_then(Value::as_u64).context("no id")
    }

    /// The end as the API shows it.
    async fn ended(&self, id: u64) -> anyhow::Result<Value> {
        self.house.finished(id).await?;
        let command = web::call(&self.house, "GET", &format!("/commands/{id}"), b"").await?.json();
        ensure!(command.get("isolation") == Some(&json!(isolation(self.rung))), "{}: {command}", self.rung);
        Ok(command)
    }

    fn place(&self, name: &str) -> PathBuf {
        self.house.folder().join(name)
    }

    async fn is_skipped(&self, guard: &str, asked: Value, text: &str) -> anyhow::Result<()> {
        let id = self.start("skipped", &json!({guard: asked}), &json!({})).await?;
        let command = self.ended(id).await?;
        let facts = ["phase", "changed", "exit_code", "signal", "flags", "error"].map(|key| command.get(key).cloned());
        let wanted = [json!("succeeded"), json!(false), Value::Null, Value::Null, json!(["skipped"]), Value::Null];
        ensure!(facts == wanted.map(Some), "{} {guard}: {command}", self.rung);
        ensure!(command.pointer("/value/skipped") == Some(&json!(guard)), "{} {guard}: {command}", self.rung);
        let said = command.pointer("/value/text").and_then(Value::as_str).unwrap_or_default();
        ensure!(said.contains(text), "{} {guard}: {said:?} does not say {text:?}", self.rung);
        Ok(())
    }

    async fn runs(&self, tag: &str, guards: Value) -> anyhow::Result<()> {
        let id = self.start(tag, &guards, &json!({})).await?;
        let command = self.ended(id).await?;
        let facts = ["phase", "changed", "exit_code", "flags", "value"].map(|key| command.get(key).cloned());
        let wanted = [json!("succeeded"), json!(true), json!(0), json!([]), Value::Null];
        ensure!(facts == wanted.map(Some), "{} {guards}: {command}", self.rung);
        ensure!(self.house.output(id, common::model::StreamName::Stdout).await? == b"ran\n", "{guards}");
        Ok(())
    }
}

fn merge(into: &mut Value, from: &Value) {
    if let (Some(into), Some(from)) = (into.as_object_mut(), from.as_object()) {
        into.extend(from.clone());
    }
}

#[tokio::test]
async fn what_guards_decide_over_http_is_what_happens_on_each_rung() -> anyhow::Result<()> {
    for rung in ALL {
        let Some(ward) = Ward::on(rung).await? else { continue };
        let here = ward.house.folder().display().to_string();
        ward.is_skipped("creates", json!(here), &here).await?;
        ward.is_skipped("removes", json!("/no/such/thing"), "/no/such/thing").await?;
        ward.is_skipped("unless", json!("echo noise; echo noise >&2; true"), "").await?;
        ward.is_skipped("unless", json!(["true"]), "").await?;
        ward.is_skipped("only_if", json!(["sh", "-c", "exit 7"]), "7").await?;
        // The second guard is asked only because the first one said yes, and is the one that is named.
        ensure!(ward.effects.counts()?.is_empty(), "{rung}: {:?}", ward.effects.counts()?);

        ward.runs("plain", json!({})).await?;
        ward.runs("creates", json!({"creates": "/no/such/thing"})).await?;
        // Each guard leaves a trace of its own: it was asked once.
        let trace = |tag: &str, code: i32| format!("{}; exit {code}", ward.effects.line(tag));
        let all = json!({
            "creates": "/no/such/thing", "removes": here, "unless": trace("unless", 1), "only_if": trace("only-if", 0),
        });
        ward.runs("all", all).await?;
        let counts: Vec<_> = ward.effects.counts()?.into_iter().collect();
        let once = ["all", "creates", "only-if", "plain", "unless"].map(|tag| (tag.to_owned(), 1));
        ensure!(counts == once, "{rung}: {counts:?}");

        // A script stands behind its guards too.
        let script = json!({"content": format!("#!/bin/sh\n{}\n", ward.effects.line("script")), "creates": here});
        let id = ward.post(json!({"operation": "script.run", "args": script}), &json!({})).await?;
        let command = ward.ended(id).await?;
        ensure!(command.get("flags") == Some(&json!(["skipped"])), "{rung}: {command}");

        // No answer is neither yes nor no.
        let id = ward.start("unknown", &json!({"unless": ["/no/such/program"]}), &json!({})).await?;
        let command = ward.ended(id).await?;
        ensure!(command.get("phase") == Some(&json!("failed")), "{rung}: {command}");
        ensure!(command.pointer("/error/code") == Some(&json!("guard")), "{rung}: {command}");
        ensure!(ward.effects.count("unknown")? + ward.effects.count("script")? == 0);
        ward.house.no_survivors().await?;
        ward.house.close().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_guard_that_does_not_end_is_cancelled_and_timed_out_like_a_command_on_each_rung() -> anyhow::Result<()> {
    for rung in ALL {
        let Some(ward) = Ward::on(rung).await? else { continue };
        let ready = ward.place("ready");
        let id = ward.start("cancelled", &json!({"only_if": deaf(&ready)}), &json!({})).await?;
        soon("the guard to stand", async || Ok(ready.exists().then_some(()))).await?;
        let running = ward.house.client().command(id).await?;
        ensure!(!running.phase.is_final(), "{running:?}");
        let path = format!("/agents/{AGENT}/commands/{id}");
        let answer = web::call(&ward.house, "DELETE", &path, br#"{"reason": "enough", "grace": "100ms"}"#).await?;
        ensure!(answer.status == 202, "{answer:?}");
        let command = ward.ended(id).await?;
        let facts = ["phase", "changed", "exit_code"].map(|key| command.get(key).cloned());
        ensure!(facts == [json!("cancelled"), json!(false), Value::Null].map(Some), "{rung}: {command}");
        ensure!(command.pointer("/cancel/reason") == Some(&json!("enough")), "{rung}: {command}");
        ward.house.no_survivors().await?;

        let slow = json!({"unless": deaf(&ward.place("slow"))});
        let id = ward.start("late", &slow, &json!({"timeout": "300ms", "grace": "100ms"})).await?;
        let command = ward.ended(id).await?;
        ensure!(command.get("phase") == Some(&json!("timed_out")), "{rung}: {command}");
        ward.house.no_survivors().await?;
        ensure!(ward.effects.counts()?.is_empty(), "{rung}: {:?}", ward.effects.counts()?);
        ward.house.close().await?;
    }
    Ok(())
}
