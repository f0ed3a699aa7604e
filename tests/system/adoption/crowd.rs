//! A hundred commands at once, each with a trace, a copy of its own output and an exit code of its own.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use api::commands::Command;
use common::model::{Phase, StreamName};
use nix::unistd::{Pid, getsid};
use testkit::checker::{Interruptions, Witness, breaches};
use testkit::effects::Effects;
use testkit::{House, survivors, wait_for};

/// A hundred commands on two shared cores, in debug builds.
const PATIENCE: Duration = Duration::from_secs(120);

/// One of them.
struct Member {
    id: u64,
    tag: String,
    code: i32,
    /// What it wrote, written by itself beside its output.
    copy: PathBuf,
}

/// All of them.
pub(super) struct Crowd {
    effects: Effects,
    folder: PathBuf,
    members: Vec<Member>,
}

impl Crowd {
    /// Nobody yet; `name` keeps crowds of one house apart.
    pub(super) fn new(house: &House, name: &str) -> anyhow::Result<Self> {
        let folder = house.folder().join(name);
        fs::create_dir(&folder)?;
        Ok(Self { effects: Effects::create(folder.join("effects"))?, folder, members: Vec::new() })
    }

    /// Starts `count` more.
    ///
    /// They write with what is built into the shell, because a hundred of them must not be the load of this test.
    pub(super) async fn start(&mut self, house: &House, agent: &str, count: usize) -> anyhow::Result<()> {
        for _ in 0..count {
            let number = self.members.len();
            let tag = format!("c{number}");
            // 0 is among them: what ends well must end as succeeded.
            let code = i32::try_from(number % 120)?;
            let copy = self.folder.join(&tag);
            let line = format!(
                "{}; n=0; while [ ! -e '{}' ]; do n=$((n+1)); read r </proc/sys/kernel/random/uuid; \
                 echo \"$n $r\" >>'{}'; echo \"$n $r\"; sleep 0.3; done; exit {code}",
                self.effects.line(&tag),
                self.go().display(),
                copy.display(),
            );
            let id = house.shell(agent, &line).await?.id;
            self.members.push(Member { id, tag, code, copy });
        }
        Ok(())
    }

    /// Waits until each has more on the manager than it had.
    pub(super) async fn flow(&self, house: &House, after: &str) -> anyhow::Result<()> {
        let mut before = Vec::new();
        for member in &self.members {
            before.push((member.id, length(&house.client().command(member.id).await?)));
        }
        let mut waiting = before.clone();
        let mut last = String::new();
        let flowing = wait_for(PATIENCE, "new output of each command on the manager", async || {
            let mut still = Vec::new();
            for (id, old) in waiting.drain(..) {
                let command = house.client().command(id).await?;
                ensure!(!command.phase.is_final(), "it ended: {command:?}");
                if length(&command) <= old {
                    last = format!("{} of {} bytes, {command:?}", length(&command), old);
                    still.push((id, old));
                }
            }
            waiting = still;
            Ok(waiting.is_empty().then_some(()))
        });
        flowing.await.with_context(|| format!("after: {after}; one that waits: {last}"))
    }

    /// Waits until each has written more, whether or not anybody hears it.
    pub(super) async fn write_on(&self, what: &str) -> anyhow::Result<()> {
        let written = |member: &Member| fs::metadata(&member.copy).map_or(0, |file| file.len());
        let before: Vec<_> = self.members.iter().map(written).collect();
        wait_for(PATIENCE, &format!("each command to write on: {what}"), async || {
            let all = self.members.iter().zip(&before).all(|(member, before)| written(member) > *before);
            Ok(all.then_some(()))
        })
        .await
    }

    /// Each lives in the one process it was started in.
    pub(super) fn is_there_once(&self, house: &House) -> anyhow::Result<()> {
        let counts = self.effects.counts()?;
        for member in &self.members {
            ensure!(counts.get(&member.tag) == Some(&1), "{} ran {:?} times", member.tag, counts.get(&member.tag));
        }
        let shells = self.shells(house);
        ensure!(shells == self.members.len(), "{shells} shells of {} commands", self.members.len());
        Ok(())
    }

    /// Lets all end and waits until their processes have, whether or not anybody hears it.
    pub(super) async fn leave(&self, house: &House) -> anyhow::Result<()> {
        fs::write(self.go(), "")?;
        wait_for(PATIENCE, "the end of each process", async || Ok((self.shells(house) == 0).then_some(()))).await
    }

    /// How many of them there are: leaders of sessions, because what they have just forked looks the same.
    fn shells(&self, house: &House) -> usize {
        let folder = self.folder.to_string_lossy();
        let leads = |pid: i32| getsid(Some(Pid::from_raw(pid))).is_ok_and(|session| session.as_raw() == pid);
        survivors::marked(house.mark()).iter().filter(|one| one.line.contains(&*folder) && leads(one.pid)).count()
    }

    /// Lets all end and compares each with what it did.
    pub(super) async fn end(self, house: &House) -> anyhow::Result<()> {
        fs::write(self.go(), "")?;
        let mut witnesses = Vec::new();
        for member in &self.members {
            let command = house.finished_within(member.id, PATIENCE).await?;
            let wanted = if member.code == 0 { Phase::Succeeded } else { Phase::Failed };
            ensure!(command.phase == wanted && command.exit_code == Some(member.code), "{}: {command:?}", member.code);
            let stdout = house.output(member.id, StreamName::Stdout).await?;
            let expected = fs::read(&member.copy)?;
            ensure!(
                blake3::hash(&stdout) == blake3::hash(&expected),
                "command {} has {} bytes on the manager and wrote {}",
                member.id,
                stdout.len(),
                expected.len()
            );
            is_counted(&stdout).with_context(|| format!("the output of command {}", member.id))?;
            witnesses.push(Witness { tag: member.tag.clone(), command, stdout, expected });
        }
        let found = breaches(&witnesses, &self.effects.counts()?, Interruptions::None);
        ensure!(found.is_empty(), "{}", found.join("\n"));
        Ok(())
    }

    fn go(&self) -> PathBuf {
        self.folder.join("go")
    }
}

/// Each line once and in order.
fn is_counted(output: &[u8]) -> anyhow::Result<()> {
    let text = str::from_utf8(output)?;
    for (at, line) in text.lines().enumerate() {
        let number = line.split(' ').next().unwrap_or_default();
        if number != (at + 1).to_string() {
            bail!("line {} is {line:?}", at + 1);
        }
    }
    Ok(())
}

fn length(command: &Command) -> u64 {
    command.streams.get(&StreamName::Stdout).map_or(0, |stream| stream.length)
}
