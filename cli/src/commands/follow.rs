//! Follows commands until they end: prints what they write, listens for Ctrl-C, and knows how each of them ended.
//!
//! ```text
//! OutputStream per command ──► Feed (one, or many over a channel) ──► Follower ──► Sink
//!                              Ctrl-C ──► once: hint, two seconds ──► detach
//!                                                └──► again: cancel, follow to the end
//! ```

use std::collections::HashMap;
use std::future::{self, Future};
use std::io::{self, IsTerminal as _};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use api::client::{Client, ClientError, OutputEvent, OutputStream};
use api::commands::{CancelRequest, Command, CommandRef, OutputCursor};
use common::model::{Phase, StreamName};
use common::shutdown::Tasks;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep_until};

use super::held::{self, Hold, Patience, Reason};
use super::{ending, flags};
use crate::error::{Failure, Kind};
use crate::output::{Escaper, Lines, Passage, Sink, Target, has_colour, note};

/// How long the second Ctrl-C may take to mean "cancel".
const SECOND_PRESS: Duration = Duration::from_secs(2);
/// Events on their way to the screen from all followers together: a slow screen stops the reading, not the memory.
const FEED: usize = 16;
/// Silent commands that are looked at together: enough to tell what is wrong, too few to trouble the manager.
const MAX_LOOKED_AT: usize = 20;
/// Followed at the same time. Each costs the manager a connection; those beyond wait for a place.
const MAX_FOLLOWED: usize = 200;

/// Ctrl-C, heard from before the work is started.
#[derive(Debug)]
pub(super) struct Interrupt(Signal);

impl Interrupt {
    /// Begins to listen; from now on Ctrl-C no longer ends this process by itself.
    pub(super) fn listen() -> Result<Self, Failure> {
        signal(SignalKind::interrupt())
            .map(Self)
            .map_err(|error| Failure::new(Kind::Work, "Ctrl-C cannot be listened for").because(error))
    }

    /// Waits for the next press.
    pub(super) async fn pressed(&mut self) {
        if self.0.recv().await.is_none() {
            future::pending::<()>().await;
        }
    }
}

/// Whether what the commands write is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Show {
    /// Live, as it comes.
    Output,
    /// Not at all: a document about the end is printed instead.
    Nothing,
}

/// How following ended.
#[derive(Debug)]
pub(super) enum Followed {
    /// Every command ended; in the order of the request.
    Ended(Vec<Command>),
    /// The person left; the commands go on.
    Detached,
}

/// Follows commands to their end or until the person leaves.
pub(super) async fn follow(
    client: &Client,
    commands: &[CommandRef],
    show: Show,
    interrupt: &mut Interrupt,
) -> Result<Followed, Failure> {
    let mut feed = Feed::open(client, commands);
    let mut follower = Follower::new(commands, show);
    let mut press = Press::None;
    // What waits for a slow screen. Nothing more is read meanwhile, and Ctrl-C is still heard.
    let mut writing: Option<Writing> = None;
    let mut patience = Patience::new();
    let mut next_look = Instant::now() + patience.next();
    let mut looking: Option<Looking> = None;
    while !follower.is_done() || writing.is_some() {
        tokio::select! {
            found = finished(&mut looking) => {
                looking = None;
                next_look = Instant::now() + patience.next();
                found.into_iter().for_each(|(index, reason)| follower.tell_hold(index, reason));
            }
            () = sleep_until(next_look), if looking.is_none() => match follower.silent() {
                silent if silent.is_empty() => next_look = Instant::now() + patience.next(),
                silent => looking = Some(Box::pin(held::look(client.clone(), silent))),
            },
            written = finished(&mut writing) => {
                writing = None;
                written.map_err(Failure::stdout)?;
            }
            news = feed.next(), if writing.is_none() => writing = write_all(follower.apply(news?)?),
            () = interrupt.pressed() => match press {
                Press::None => {
                    note(&format!("press Ctrl-C again to cancel; else this goes on and {} follows it", follower.how_to_follow()));
                    press = Press::Once(Instant::now() + SECOND_PRESS);
                }
                Press::Once(_) => {
                    note("cancelling; a third Ctrl-C leaves without waiting for the end");
                    cancel_all(client, &follower.open_ids()).await;
                    press = Press::Twice;
                }
                Press::Twice => return Ok(Followed::Detached),
            },
            () = press.timeout() => return Ok(Followed::Detached),
        }
    }
    follower.tell_ends();
    Ok(Followed::Ended(follower.into_ends()))
}

/// Bytes and where they go.
type Piece = (Target, Vec<u8>);

type Writing = Pin<Box<dyn Future<Output = io::Result<()>>>>;

/// A look at commands that nothing is heard of.
type Looking = Pin<Box<dyn Future<Output = Vec<(usize, Reason)>>>>;

fn write_all(pieces: Vec<Piece>) -> Option<Writing> {
    if pieces.is_empty() {
        return None;
    }
    Some(Box::pin(async move {
        for (target, bytes) in pieces {
            Sink.write(target, bytes).await?;
        }
        Ok(())
    }))
}

/// Waits for what is under way; for ever when there is nothing.
async fn finished<T>(under_way: &mut Option<Pin<Box<dyn Future<Output = T>>>>) -> T {
    match under_way {
        Some(future) => future.await,
        None => future::pending().await,
    }
}

/// How often Ctrl-C was pressed.
#[derive(Debug, Clone, Copy)]
enum Press {
    None,
    Once(Instant),
    Twice,
}

impl Press {
    /// Waits until a single press has stayed single.
    async fn timeout(self) {
        match self {
            Self::Once(until) => sleep_until(until).await,
            Self::None | Self::Twice => future::pending().await,
        }
    }
}

async fn cancel_all(client: &Client, ids: &[u64]) {
    let request = CancelRequest { reason: Some("Ctrl-C".to_owned()), grace: None };
    for id in ids {
        if let Err(error) = client.cancel(*id, &request).await {
            note(&format!("command {id} could not be cancelled: {}", common::error::Chain(&error)));
        }
    }
}

/// Something about the command at an index of the request.
type News = (usize, Result<OutputEvent, ClientError>);

/// Where news comes from. One command needs no task and no channel.
enum Feed {
    One(Box<OutputStream>),
    Many(mpsc::Receiver<News>),
}

impl Feed {
    fn open(client: &Client, commands: &[CommandRef]) -> Self {
        if let [command] = commands {
            return Self::One(Box::new(client.follow(command.id, OutputCursor::default())));
        }
        let (sender, receiver) = mpsc::channel(FEED);
        let places = Arc::new(Semaphore::new(MAX_FOLLOWED));
        let tasks = Tasks::new();
        for (index, command) in commands.iter().enumerate() {
            let (client, places, sender, id) = (client.clone(), Arc::clone(&places), sender.clone(), command.id);
            tasks.spawn("follower", async move {
                // The semaphore is never closed; without a place there would be nothing to follow.
                let Ok(_place) = places.acquire().await else { return };
                let mut stream = client.follow(id, OutputCursor::default());
                while let Some(event) = stream.next().await.transpose() {
                    let is_last = event.is_err();
                    if sender.send((index, event)).await.is_err() || is_last {
                        return;
                    }
                }
            });
        }
        Self::Many(receiver)
    }

    /// # Cancel safety
    /// Safe: both kinds keep what was not taken.
    async fn next(&mut self) -> Result<News, Failure> {
        let ended = || Failure::new(Kind::Work, "the output ended before the command did");
        match self {
            Self::One(stream) => match stream.next().await.transpose() {
                Some(event) => Ok((0, event)),
                None => Err(ended()),
            },
            Self::Many(receiver) => receiver.recv().await.ok_or_else(ended),
        }
    }
}

/// What is known about the followed commands, and how their bytes reach the screen.
struct Follower {
    commands: Vec<Followee>,
    show: Show,
    passages: HashMap<(usize, StreamName), Passage>,
    has_colour: bool,
    is_terminal: [bool; 2],
}

struct Followee {
    reference: CommandRef,
    end: Option<Box<Command>>,
    /// The last that was heard.
    phase: Option<Phase>,
    /// What was told already: each is said once.
    told: Vec<Hold>,
}

impl Follower {
    fn new(commands: &[CommandRef], show: Show) -> Self {
        let commands = commands
            .iter()
            .map(|reference| Followee { reference: reference.clone(), end: None, phase: None, told: Vec::new() })
            .collect();
        Self {
            commands,
            show,
            passages: HashMap::new(),
            has_colour: has_colour(),
            is_terminal: [io::stdout().is_terminal(), io::stderr().is_terminal()],
        }
    }

    fn is_done(&self) -> bool {
        self.commands.iter().all(|command| command.end.is_some())
    }

    fn open_ids(&self) -> Vec<u64> {
        let open = self.commands.iter().filter(|command| command.end.is_none());
        open.map(|command| command.reference.id).collect()
    }

    fn how_to_follow(&self) -> String {
        match self.open_ids().as_slice() {
            [id] => format!("`paprika logs -f {id}`"),
            ids => {
                let ids: Vec<_> = ids.iter().take(5).map(u64::to_string).collect();
                format!("`paprika logs -f ID` (ID: {}, …)", ids.join(", "))
            }
        }
    }

    fn into_ends(self) -> Vec<Command> {
        self.commands.into_iter().filter_map(|command| command.end.map(|end| *end)).collect()
    }

    /// Takes news in and returns what is to be written.
    fn apply(&mut self, (index, event): News) -> Result<Vec<Piece>, Failure> {
        let event = event.map_err(|error| {
            let failure = Failure::from(error);
            match self.commands.get(index) {
                Some(command) => failure.hint(format!(
                    "command {} may still run: paprika logs -f {}",
                    command.reference.id, command.reference.id
                )),
                None => failure,
            }
        })?;
        Ok(match event {
            OutputEvent::Bytes { stream, bytes, .. } => self.write(index, stream, &bytes).into_iter().collect(),
            OutputEvent::Gap { stream, offset, length } => {
                if self.show == Show::Output {
                    let name = self.name_before(index);
                    note(&format!("{name}{length} bytes of {stream} from offset {offset} on no longer exist"));
                }
                Vec::new()
            }
            OutputEvent::Phase(command) => {
                if let Some(followee) = self.commands.get_mut(index) {
                    followee.phase = Some(command.phase);
                }
                if let Some(reason) = held::reason(&command) {
                    self.tell_hold(index, reason);
                }
                Vec::new()
            }
            OutputEvent::End(command) => self.end(index, command),
        })
    }

    /// The commands that no agent is known to hold, by index and id.
    fn silent(&self) -> Vec<(usize, u64)> {
        let is_silent =
            |followee: &Followee| followee.end.is_none() && followee.phase.is_none_or(|phase| phase < Phase::Accepted);
        let silent = self.commands.iter().enumerate().filter(|(_, followee)| is_silent(followee));
        silent.take(MAX_LOOKED_AT).map(|(index, followee)| (index, followee.reference.id)).collect()
    }

    /// Says once what holds a command up.
    fn tell_hold(&mut self, index: usize, (hold, words): Reason) {
        let name = self.name_before(index);
        if let Some(followee) = self.commands.get_mut(index)
            && followee.end.is_none()
            && !followee.told.contains(&hold)
        {
            followee.told.push(hold);
            note(&format!("{name}command {} {words}", followee.reference.id));
        }
    }

    fn write(&mut self, index: usize, stream: StreamName, bytes: &[u8]) -> Option<Piece> {
        let target = self.target(stream)?;
        if !self.passages.contains_key(&(index, stream)) {
            let passage = self.passage(index, target);
            self.passages.insert((index, stream), passage);
        }
        let out = self.passages.get_mut(&(index, stream))?.take(bytes);
        (!out.is_empty()).then_some((target, out))
    }

    fn end(&mut self, index: usize, command: Box<Command>) -> Vec<Piece> {
        let mut rest = Vec::new();
        for stream in StreamName::ALL {
            if let (Some(mut passage), Some(target)) = (self.passages.remove(&(index, stream)), self.target(stream)) {
                rest.push((target, passage.finish()));
            }
        }
        rest.retain(|(_, bytes)| !bytes.is_empty());
        let followee = self.commands.get_mut(index);
        if let Some(followee) = followee {
            followee.end = Some(command);
        }
        rest
    }

    /// Says how the commands ended, where they do not say so themselves.
    fn tell_ends(&self) {
        if self.show == Show::Nothing {
            return;
        }
        for command in self.commands.iter().filter_map(|followee| followee.end.as_ref()) {
            // A program that exits with a code says for itself what went wrong; the rest is for us to say.
            let says_itself = self.commands.len() == 1 && command.exit_code.is_some() && command.phase == Phase::Failed;
            let is_plain = command.phase == Phase::Succeeded && ending::skipped(command).is_none();
            if !is_plain && !says_itself {
                note(&format!("{}: command {} {}", command.agent, command.id, ending::sentence(command)));
            }
            for flag in command.flags.iter().filter(|flag| flags::is_worth_a_note(flag)) {
                note(&format!("{}: command {}: {}", command.agent, command.id, flags::sentence(flag)));
            }
        }
    }

    /// Where a stream goes; `None` for those that are not for the eye.
    fn target(&self, stream: StreamName) -> Option<Target> {
        match (self.show, stream) {
            (Show::Nothing, _) | (_, StreamName::Steps) => None,
            (Show::Output, StreamName::Stdout) => Some(Target::Stdout),
            (Show::Output, StreamName::Stderr) => Some(Target::Stderr),
        }
    }

    fn passage(&self, index: usize, target: Target) -> Passage {
        let [stdout, stderr] = self.is_terminal;
        let is_terminal = match target {
            Target::Stdout => stdout,
            Target::Stderr => stderr,
        };
        let escaper = is_terminal.then(Escaper::default);
        if self.commands.len() > 1 {
            return Passage::Lines(Lines::new(self.prefix(index, is_terminal && self.has_colour), escaper));
        }
        escaper.map_or(Passage::Exact, Passage::Escaped)
    }

    fn prefix(&self, index: usize, is_coloured: bool) -> String {
        let names = || self.commands.iter().map(|command| command.reference.agent.as_str());
        let width = names().map(str::len).max().unwrap_or(0);
        let name = names().nth(index).unwrap_or_default();
        if is_coloured {
            // Cyan, green, yellow, magenta, blue: readable on light and dark, and none that means trouble.
            let colour = [36, 32, 33, 35, 34].get(index % 5).copied().unwrap_or(36);
            format!("\x1b[{colour}m{name:<width$}\x1b[0m | ")
        } else {
            format!("{name:<width$} | ")
        }
    }

    fn name_before(&self, index: usize) -> String {
        match self.commands.get(index) {
            Some(command) if self.commands.len() > 1 => format!("{}: ", command.reference.agent),
            _ => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use bytes::Bytes;

    use super::super::ending::sample::command;
    use super::*;

    fn follower(agents: &[&str], show: Show) -> Follower {
        let commands: Vec<CommandRef> =
            agents.iter().zip(1..).map(|(agent, id)| CommandRef { id, agent: agent.parse().unwrap() }).collect();
        Follower { has_colour: false, is_terminal: [false, false], ..Follower::new(&commands, show) }
    }

    fn wrote(stream: StreamName, bytes: &'static [u8]) -> Result<OutputEvent, ClientError> {
        Ok(OutputEvent::Bytes { stream, offset: 0, bytes: Bytes::from_static(bytes) })
    }

    fn ended(phase: Phase) -> Result<OutputEvent, ClientError> {
        Ok(OutputEvent::End(Box::new(command(phase))))
    }

    #[test]
    fn one_command_passes_exactly_and_a_terminal_is_protected() {
        let mut follower = follower(&["web1"], Show::Output);
        let out = follower.apply((0, wrote(StreamName::Stdout, b"\x1b[1m\xff"))).unwrap();
        assert_eq!(out, [(Target::Stdout, b"\x1b[1m\xff".to_vec())]);
        let mut follower = Follower { is_terminal: [true, false], ..follower };
        follower.passages.clear();
        let out = follower.apply((0, wrote(StreamName::Stdout, b"\x1b[1m"))).unwrap();
        assert_eq!(out, [(Target::Stdout, b"\\u{1b}[1m".to_vec())]);
        let out = follower.apply((0, wrote(StreamName::Stderr, b"\x1b[1m"))).unwrap();
        assert_eq!(out, [(Target::Stderr, b"\x1b[1m".to_vec())], "stderr is a file here");
    }

    #[test]
    fn several_commands_are_done_when_all_are_and_keep_their_order() {
        let mut follower = follower(&["a", "longer"], Show::Output);
        assert_eq!(
            follower.apply((1, wrote(StreamName::Stdout, b"x\ny"))).unwrap(),
            [(Target::Stdout, b"longer | x\n".to_vec())]
        );
        assert_eq!(
            follower.apply((0, wrote(StreamName::Stderr, b"e\n"))).unwrap(),
            [(Target::Stderr, b"a      | e\n".to_vec())]
        );
        assert_eq!(follower.open_ids(), [1, 2]);
        assert_eq!(follower.apply((1, ended(Phase::Succeeded))).unwrap(), [(Target::Stdout, b"longer | y\n".to_vec())]);
        assert_eq!((follower.is_done(), follower.open_ids()), (false, vec![1]));
        assert_eq!(follower.how_to_follow(), "`paprika logs -f 1`");
        assert!(follower.apply((0, ended(Phase::Failed))).unwrap().is_empty());
        assert!(follower.is_done());
        let phases: Vec<_> = follower.into_ends().into_iter().map(|command| command.phase).collect();
        assert_eq!(phases, [Phase::Failed, Phase::Succeeded]);
    }

    #[test]
    fn programs_get_no_bytes_and_steps_are_for_nobodys_eye() {
        let mut silent = follower(&["a"], Show::Nothing);
        assert!(silent.apply((0, wrote(StreamName::Stdout, b"x"))).unwrap().is_empty());
        let mut loud = follower(&["a"], Show::Output);
        assert!(loud.apply((0, wrote(StreamName::Steps, b"{}"))).unwrap().is_empty());
    }

    #[test]
    fn each_hold_is_told_once_and_silence_ends_with_the_agents_word() {
        let mut follower = follower(&["a", "b"], Show::Output);
        assert_eq!(follower.silent(), [(0, 1), (1, 2)], "nothing was heard of either");
        let phase = |phase| Ok(OutputEvent::Phase(Box::new(command(phase))));
        follower.apply((0, phase(Phase::Queued))).unwrap();
        assert_eq!(follower.silent(), [(0, 1), (1, 2)]);
        for _ in 0..2 {
            follower.tell_hold(0, (Hold::Drained, "is drained".into()));
        }
        follower.apply((0, phase(Phase::Paused))).unwrap();
        assert_eq!(follower.commands[0].told, [Hold::Drained, Hold::Paused]);
        assert_eq!(follower.silent(), [(1, 2)]);
        follower.apply((1, ended(Phase::Cancelled))).unwrap();
        follower.tell_hold(1, (Hold::Away, "is away".into()));
        assert!(follower.commands[1].told.is_empty(), "what is over is held up by nothing");
        assert!(follower.silent().is_empty());
    }

    #[test]
    fn a_lost_manager_is_told_with_the_way_back() {
        let mut follower = follower(&["a"], Show::Output);
        let lost = ClientError::Deadline { address: "unix:/x".into(), limit: Duration::from_secs(1) };
        let failure = follower.apply((0, Err(lost))).unwrap_err();
        assert_eq!(failure.kind(), Kind::Unreachable);
        assert!(failure.lines().contains("paprika logs -f 1"), "{}", failure.lines());
    }
}
