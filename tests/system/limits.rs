//! Limits bite, for real, through the controllers this machine has; where there are none a limited command is refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use api::commands::{CancelRequest, Command, CommandRequest, LimitsRequest};
use common::config::HumanDuration;
use common::model::{Phase, StreamName};
use serde_json::json;
use testkit::survivors::{self, cgroup_mounts};
use testkit::{House, HouseOptions, ground, keeper, soon, wait_for};

const GRACE: HumanDuration = HumanDuration(Duration::from_millis(200));
/// An agent answers within this time whatever its commands do.
const ANSWER: Duration = Duration::from_secs(1);
/// How long a spinner spins while its share is measured: many of the kernel's periods of 100 ms.
const SPIN: Duration = Duration::from_secs(3);
/// After it, an agent without work has given back what it gives back.
const IDLE: Duration = Duration::from_secs(5);
/// How often it is measured when others keep the processors busy.
const SPINS: u32 = 5;

struct Ward {
    house: House,
    zoo: PathBuf,
}

impl Ward {
    /// A house whose agent can hold limits of this controller, or a line that says why there is none.
    async fn with(controller: &str) -> anyhow::Result<Option<Self>> {
        let offered = cgroup_mounts().into_iter().any(|mount| {
            let listed = fs::read_to_string(mount.path.join("cgroup.controllers")).unwrap_or_default();
            mount.controllers.iter().any(|name| name == controller)
                || mount.unified && listed.split_ascii_whitespace().any(|name| name == controller)
        });
        let lacks = match (ground::is_root(), offered) {
            (false, _) => "needs root to make cgroups",
            (true, false) => "this machine does not offer the controller",
            (true, true) => return Self::on("auto").await.map(Some),
        };
        ground::not_run(env!("CARGO_TARGET_TMPDIR"), &format!("limits::{controller}"), lacks)?;
        Ok(None)
    }

    async fn on(cgroup: &str) -> anyhow::Result<Self> {
        let mut options = HouseOptions::new(env!("CARGO_BIN_EXE_paprika")).agents(&["web1"]);
        options.cgroup = cgroup.to_owned();
        let zoo = keeper::zoo(Path::new(env!("CARGO_BIN_EXE_paprika")))?;
        Ok(Self { house: House::start(options).await?, zoo })
    }

    fn animal(&self, words: &[&str], limits: LimitsRequest) -> CommandRequest {
        let zoo = self.zoo.display().to_string();
        let argv: Vec<_> = [zoo.as_str()].into_iter().chain(words.iter().copied()).collect();
        CommandRequest {
            operation: "command.run".to_owned(),
            args: json!({ "run": argv }),
            limits: Some(limits),
            ..CommandRequest::default()
        }
    }

    async fn start(&self, request: &CommandRequest) -> anyhow::Result<Command> {
        Ok(self.house.client().start(&"web1".parse()?, request).await?)
    }

    /// Runs it to its end, after which none of its cgroups may be left, in any hierarchy.
    async fn ended(&self, request: &CommandRequest) -> anyhow::Result<Command> {
        let command = self.house.finished(self.start(request).await?.id).await?;
        let gone = soon("its cgroups to be gone", async || Ok(survivors::groups(command.uid).is_empty().then_some(())));
        gone.await.with_context(|| format!("still there: {:?}", survivors::groups(command.uid)))?;
        Ok(command)
    }

    /// Asks the agent whether it is there; answers how long that took, from the request to the final phase.
    async fn ping(&self) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let request =
            CommandRequest { operation: "agent.ping".to_owned(), args: json!({}), ..CommandRequest::default() };
        let command = self.ended(&request).await?;
        ensure!(command.phase == Phase::Succeeded, "{command:?}");
        Ok(started.elapsed())
    }
}

fn memory(limit: &str) -> LimitsRequest {
    LimitsRequest { memory: Some(limit.to_owned()), ..LimitsRequest::default() }
}

fn oom_score(pid: u32) -> anyhow::Result<i32> {
    Ok(fs::read_to_string(format!("/proc/{pid}/oom_score_adj"))?.trim().parse()?)
}

#[tokio::test]
async fn a_hog_dies_of_its_limit_while_agent_and_shim_live() -> anyhow::Result<()> {
    let Some(ward) = Ward::with("memory").await? else { return Ok(()) };
    dies_of_its_limit(ward).await
}

#[tokio::test]
async fn a_hog_dies_of_its_limit_where_commands_are_held_by_the_freezer_of_version_1() -> anyhow::Result<()> {
    let v1 = |name: &str| cgroup_mounts().iter().any(|mount| mount.controllers.iter().any(|other| other == name));
    if !ground::is_root() || !v1("freezer") || !v1("memory") {
        let reason = "needs root, and the freezer and memory controllers of version 1";
        return Ok(ground::not_run(env!("CARGO_TARGET_TMPDIR"), "limits::v1", reason)?);
    }
    dies_of_its_limit(Ward::on("v1").await?).await
}

async fn dies_of_its_limit(mut ward: Ward) -> anyhow::Result<()> {
    let command = ward.ended(&ward.animal(&["hog", "tag", "-", "1000000000"], memory("64M"))).await?;
    ensure!(command.phase == Phase::Failed && command.oom && command.signal == Some(9), "{command:?}");
    ensure!(!command.flags.iter().any(|flag| flag == "oom_by_host"), "{:?}", command.flags);
    let peak = command.usage.as_ref().and_then(|usage| usage.memory_peak).context("no peak of memory")?;
    ensure!(peak > 32 << 20 && peak <= 64 << 20, "a peak of {peak} bytes");
    // The result came from the shim, and the agent is the one that was started.
    ensure!(ward.house.agent("web1")?.status()?.is_none(), "the agent died");
    ward.ping().await?;
    ward.house.close().await
}

#[tokio::test]
async fn a_child_that_dies_of_the_limit_is_told_and_a_kill_by_hand_is_not() -> anyhow::Result<()> {
    let Some(ward) = Ward::with("memory").await? else { return Ok(()) };
    let child = ward.ended(&ward.animal(&["hog-child", "tag", "-", "1000000000"], memory("64M"))).await?;
    ensure!(child.oom, "{child:?}");
    // Version 2 takes the whole group, version 1 one process: then the main one ends well and says so.
    let survived = child.phase == Phase::Succeeded && child.exit_code == Some(0);
    ensure!(survived || child.signal == Some(9), "{child:?}");
    if survived {
        ensure!(ward.house.output(child.id, StreamName::Stdout).await? == b"the child is gone\n");
    }
    let by_hand = CommandRequest { args: json!({ "shell": "kill -9 $$" }), ..ward.animal(&[], memory("64M")) };
    let by_hand = ward.ended(&by_hand).await?;
    ensure!(by_hand.signal == Some(9) && !by_hand.oom, "{by_hand:?}");
    ward.house.close().await
}

#[tokio::test]
async fn memory_within_the_limit_is_left_alone() -> anyhow::Result<()> {
    let Some(ward) = Ward::with("memory").await? else { return Ok(()) };
    let ready = ward.house.folder().join("ready");
    let place = ready.display().to_string();
    let command = ward.start(&ward.animal(&["hog", "tag", &place, "33554432"], memory("64M"))).await?;
    soon("the hog to be full", async || Ok(ready.exists().then_some(()))).await?;
    ward.house.client().cancel(command.id, &CancelRequest { reason: None, grace: Some(GRACE) }).await?;
    let command = ward.house.finished(command.id).await?;
    ensure!(command.phase == Phase::Cancelled && !command.oom, "{command:?}");
    ward.house.close().await
}

#[tokio::test]
async fn the_kernel_prefers_the_work_to_agent_and_shim() -> anyhow::Result<()> {
    // Root without CAP_SYS_RESOURCE, as in many containers, may not either.
    let may = std::process::Command::new("sh").args(["-c", "echo -900 >/proc/self/oom_score_adj"]).output()?;
    if !may.status.success() {
        let reason = "needs the right to lower what the kernel's OOM killer goes by (CAP_SYS_RESOURCE)";
        return Ok(ground::not_run(env!("CARGO_TARGET_TMPDIR"), "limits::protected", reason)?);
    }
    let mut ward = Ward::on("auto").await?;
    let command = ward.start(&ward.animal(&["rest", "protected", "-"], LimitsRequest::default())).await?;
    let uid = command.uid.to_string();
    soon("the work to run", async || Ok((!survivors::of_command(command.uid, "").is_empty()).then_some(()))).await?;
    ensure!(oom_score(ward.house.agent("web1")?.pid())? == -900, "the agent is not protected");
    let shims: Vec<_> = survivors::with_argument(&uid);
    ensure!(!shims.is_empty(), "no shim of {uid}");
    for shim in shims {
        ensure!(oom_score(shim.pid.cast_unsigned())? == -900, "the shim {shim:?} is not protected");
    }
    for work in survivors::of_command(command.uid, "") {
        ensure!(oom_score(work.pid.cast_unsigned())? == 0, "the work {work:?} is protected");
    }
    ward.house.client().cancel(command.id, &CancelRequest { reason: None, grace: Some(GRACE) }).await?;
    ward.house.finished(command.id).await?;
    ward.house.close().await
}

#[tokio::test]
async fn a_spinner_gets_its_share_and_no_more() -> anyhow::Result<()> {
    let Some(ward) = Ward::with("cpu").await? else { return Ok(()) };
    let limits = LimitsRequest { cpu: Some("50%".to_owned()), ..LimitsRequest::default() };
    let mut request = ward.animal(&["spinner", "tag", "-"], limits);
    (request.timeout, request.grace) = (Some(HumanDuration(SPIN)), Some(HumanDuration(Duration::ZERO)));
    let mut seen = Vec::new();
    for _ in 0..SPINS {
        let before = idle()?;
        let command = ward.ended(&request).await?;
        let idle = idle()?.saturating_sub(before);
        ensure!(command.phase == Phase::TimedOut, "{command:?}");
        let usage = command.usage.as_ref().context("no usage")?;
        let (cpu, wall) = (usage.cpu_ms.context("no cpu time")?, usage.duration_ms.context("no duration")?);
        ensure!(cpu * 100 <= wall * 55, "{cpu} ms of {wall} ms are more than half a core");
        if cpu * 100 >= wall * 45 {
            return ward.house.close().await;
        }
        // It got less. That is the limit's fault only if nobody else wanted what was left.
        ensure!(idle < SPIN / 2, "{cpu} ms of {wall} ms, while processors idled for {idle:?}");
        seen.push(format!("{cpu}/{wall} ms"));
    }
    let reason = format!("the lower edge: others kept all processors busy ({})", seen.join(", "));
    ground::not_run(env!("CARGO_TARGET_TMPDIR"), "limits::spinner", &reason)?;
    ward.house.close().await
}

/// How long the processors of this machine had nothing to do since its start, all together.
fn idle() -> anyhow::Result<Duration> {
    let text = fs::read_to_string("/proc/uptime")?;
    Ok(Duration::from_secs_f64(text.split_ascii_whitespace().nth(1).context("no idle time")?.parse()?))
}

#[tokio::test]
async fn groups_that_a_limited_command_made_for_itself_are_removed_with_it() -> anyhow::Result<()> {
    let Some(ward) = Ward::with("pids").await? else { return Ok(()) };
    let limits = LimitsRequest { tasks: Some(100), cpu: Some("100%".to_owned()), ..memory("256M") };
    let tag = common::id::Uid::random().to_string();
    let command = ward.ended(&ward.animal(&["nested", &tag, "-", "leave"], limits)).await?;
    ensure!(
        command.phase == Phase::Succeeded && command.flags.iter().any(|flag| flag == "strays_killed"),
        "{command:?}"
    );
    let left = survivors::of_command(command.uid, &tag);
    ensure!(left.is_empty(), "survivors: {left:?}");
    ward.house.close().await
}

#[tokio::test]
async fn a_mark_that_only_version_2_knows_is_refused_where_there_is_only_version_1() -> anyhow::Result<()> {
    let Some(ward) = Ward::with("memory").await? else { return Ok(()) };
    let limits = LimitsRequest { memory_high: Some("32M".to_owned()), ..LimitsRequest::default() };
    let command = ward.ended(&ward.animal(&["exit", "tag", "-", "0"], limits)).await?;
    if cgroup_mounts().iter().any(|mount| mount.controllers.iter().any(|name| name == "memory")) {
        let error = command.error.clone().with_context(|| format!("no error: {command:?}"))?;
        ensure!(error.code == "limits" && error.text.contains("memory_high"), "{error:?}");
    } else {
        ensure!(command.phase == Phase::Succeeded, "{command:?}");
    }
    ward.house.close().await
}

#[tokio::test]
async fn a_fork_bomb_hits_its_limit_and_the_agent_answers() -> anyhow::Result<()> {
    const TASKS: u32 = 50;
    let Some(ward) = Ward::with("pids").await? else { return Ok(()) };
    let limits = LimitsRequest { tasks: Some(TASKS), ..LimitsRequest::default() };
    let tag = common::id::Uid::random().to_string();
    let command = ward.start(&ward.animal(&["bomb", &tag, "-", "limited"], limits)).await?;
    let mut most = 0;
    soon("the bomb to reach its limit", async || {
        most = survivors::with_argument(&tag).len();
        Ok((most >= TASKS as usize - 5).then_some(()))
    })
    .await?;
    for _ in 0..5 {
        let took = ward.ping().await?;
        ensure!(took <= ANSWER, "the agent took {took:?} to answer");
        let live = survivors::with_argument(&tag).len();
        ensure!(live <= TASKS as usize, "{live} live");
    }
    // Others can work meanwhile.
    let other = ward.ended(&ward.animal(&["exit", "other", "-", "4"], LimitsRequest::default())).await?;
    ensure!(other.exit_code == Some(4), "{other:?}");
    ward.house.client().cancel(command.id, &CancelRequest { reason: None, grace: Some(GRACE) }).await?;
    let command = ward.house.finished(command.id).await?;
    let left = survivors::of_command(command.uid, &tag);
    ensure!(left.is_empty(), "survivors: {left:?}");
    ensure!(command.phase == Phase::Cancelled, "{command:?}");
    // Kernels before 6.1, and version 1 before that, do not count it.
    let peak = command.usage.as_ref().and_then(|usage| usage.tasks_peak);
    ensure!(
        peak.is_none_or(|peak| peak <= u64::from(TASKS) && peak >= u64::from(TASKS) - 5),
        "a peak of {peak:?} tasks"
    );
    ward.house.close().await
}

/// A cgroup in the tree of the `pids` controller, for the agent itself; removed at the end.
struct Room(PathBuf);

impl Room {
    fn of(pid: u32) -> anyhow::Result<Self> {
        let tree = cgroup_mounts().into_iter().find(|mount| mount.controllers.iter().any(|name| name == "pids"));
        let tree = tree.context("no pids controller of version 1")?.path;
        let room = Self(tree.join(format!("paprika-test-{pid}")));
        fs::create_dir(&room.0)?;
        fs::write(room.0.join("cgroup.procs"), pid.to_string())?;
        Ok(room)
    }

    fn set(&self, most: &str) -> anyhow::Result<()> {
        Ok(fs::write(self.0.join("pids.max"), most)?)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // Who is still in it when the test has failed keeps it; without a limit it does no harm.
        let _ = fs::write(self.0.join("pids.max"), "max");
        let _ = fs::remove_dir(&self.0);
    }
}

#[tokio::test]
async fn an_agent_without_room_for_another_thread_or_process_lives_on() -> anyhow::Result<()> {
    if !ground::is_root() || !cgroup_mounts().iter().any(|mount| mount.controllers.iter().any(|name| name == "pids")) {
        let reason = "needs root and the pids controller of version 1";
        return Ok(ground::not_run(env!("CARGO_TARGET_TMPDIR"), "limits::room", reason)?);
    }
    let mut ward = Ward::on("auto").await?;
    ward.ping().await?;
    let pid = ward.house.agent("web1")?.pid();
    let threads = || fs::read_dir(format!("/proc/{pid}/task")).map(Iterator::count);
    // An agent that gives threads back has as few as ever after a while; one that keeps them has them.
    let _ = wait_for(IDLE, "an idle agent", async || Ok((threads()? == 1).then_some(()))).await;
    let room = Room::of(pid)?;
    room.set(&threads()?.to_string())?;
    let command = ward.start(&ward.animal(&["exit", "tag", "-", "4"], LimitsRequest::default())).await?;
    let held = ward
        .house
        .command_when(command.id, "it to wait for room", |command| command.waiting.as_deref() == Some("no_resources"));
    let held = held.await;
    ensure!(ward.house.agent("web1")?.status()?.is_none(), "the agent died");
    held?;
    ward.ping().await?;
    room.set("max")?;
    let command = ward.house.finished(command.id).await?;
    ensure!(command.exit_code == Some(4), "{command:?}");
    ensure!(ward.house.agent("web1")?.status()?.is_none(), "the agent died");
    ward.house.close().await
}

#[tokio::test]
async fn a_limit_that_nothing_enforces_refuses_the_command_unless_it_is_best_effort() -> anyhow::Result<()> {
    let ward = Ward::on("none").await?;
    let share = || LimitsRequest { cpu: Some("50%".to_owned()), ..LimitsRequest::default() };
    let tasks = || LimitsRequest { tasks: Some(10), ..LimitsRequest::default() };
    for (limits, word) in [(memory("64M"), "memory"), (share(), "cpu"), (tasks(), "tasks")] {
        let refused = ward.ended(&ward.animal(&["exit", "tag", "-", "0"], limits.clone())).await?;
        let error = refused.error.clone().with_context(|| format!("no error: {refused:?}"))?;
        ensure!(refused.exit_code.is_none() && refused.changed != Some(true), "it ran: {refused:?}");
        ensure!(matches!(refused.phase, Phase::Refused | Phase::Failed) && error.code == "limits", "{refused:?}");
        ensure!(error.text.contains(word), "{word} is not named: {}", error.text);
        let best = LimitsRequest { best_effort: true, ..limits };
        let ran = ward.ended(&ward.animal(&["exit", "tag", "-", "0"], best)).await?;
        ensure!(ran.phase == Phase::Succeeded, "{ran:?}");
        ensure!(ran.flags.iter().any(|flag| flag == "limits_not_enforced"), "{:?}", ran.flags);
    }
    // A limit of output needs nobody's help.
    let output = LimitsRequest { output: Some("1M".to_owned()), ..LimitsRequest::default() };
    let ran = ward.ended(&ward.animal(&["exit", "tag", "-", "0"], output)).await?;
    ensure!(ran.phase == Phase::Succeeded && ran.isolation.as_deref() == Some("best_effort"), "{ran:?}");
    ward.house.close().await
}
