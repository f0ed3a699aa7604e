//! `logs`: prints what a command wrote, from any byte on, and follows it while it runs.

use std::io::{self, IsTerminal as _};

use api::client::{Client, OutputEvent, RawPiece};
use api::commands::{OutputChunk, OutputCursor};
use common::model::StreamName;

use super::ending;
use crate::args::{Format, LogsArgs, StreamChoice};
use crate::error::Failure;
use crate::output::{Escaper, Passage, Printer, Sink, Target, note};

pub(super) async fn run(client: &Client, printer: Printer, args: &LogsArgs) -> Result<(), Failure> {
    match (printer.format, args.stream) {
        (Format::Table, Some(choice)) => one_stream(client, args, name(choice)).await,
        (Format::Table, None) => all_streams(client, args).await,
        (_, choice) => documents(client, printer, args, choice.map(name)).await,
    }
}

fn name(choice: StreamChoice) -> StreamName {
    match choice {
        StreamChoice::Stdout => StreamName::Stdout,
        StreamChoice::Stderr => StreamName::Stderr,
    }
}

/// The bytes of one stream go to stdout, whichever it is: that is what was asked for.
async fn one_stream(client: &Client, args: &LogsArgs, stream: StreamName) -> Result<(), Failure> {
    let mut passage = passage(io::stdout().is_terminal());
    let mut output = client.raw_output(args.id, stream, args.from, args.follow);
    while let Some(piece) = output.next().await? {
        match piece {
            RawPiece::Bytes(bytes) => write(Target::Stdout, passage.take(&bytes)).await?,
            RawPiece::Gap { offset, length } => tell_gap(stream, offset, length),
        }
    }
    write(Target::Stdout, passage.finish()).await
}

async fn all_streams(client: &Client, args: &LogsArgs) -> Result<(), Failure> {
    let mut stdout = passage(io::stdout().is_terminal());
    let mut stderr = passage(io::stderr().is_terminal());
    let mut output = open(client, args, OutputCursor::default());
    while let Some(event) = output.next().await? {
        match event {
            OutputEvent::Bytes { stream: StreamName::Stdout, bytes, .. } => {
                write(Target::Stdout, stdout.take(&bytes)).await?;
            }
            OutputEvent::Bytes { stream: StreamName::Stderr, bytes, .. } => {
                write(Target::Stderr, stderr.take(&bytes)).await?;
            }
            OutputEvent::Bytes { stream: StreamName::Steps, .. } | OutputEvent::Phase(_) => {}
            OutputEvent::Gap { stream, offset, length } => tell_gap(stream, offset, length),
            OutputEvent::End(command) => {
                write(Target::Stdout, stdout.finish()).await?;
                write(Target::Stderr, stderr.finish()).await?;
                if args.follow {
                    note(&format!("command {} {}", command.id, ending::sentence(&command)));
                }
            }
        }
    }
    Ok(())
}

/// For programs: each piece with its stream and offset, the bytes in base64, as the API has them.
async fn documents(
    client: &Client,
    printer: Printer,
    args: &LogsArgs,
    only: Option<StreamName>,
) -> Result<(), Failure> {
    let mut cursor = OutputCursor::default();
    if let Some(stream) = only {
        cursor.advance(stream, args.from);
    }
    let mut output = open(client, args, cursor);
    while let Some(event) = output.next().await? {
        let chunk = match event {
            OutputEvent::Bytes { stream, offset, bytes } => {
                OutputChunk { stream, offset, b64: api::base64::encode(&bytes), gap: 0 }
            }
            OutputEvent::Gap { stream, offset, length } => {
                OutputChunk { stream, offset, b64: String::new(), gap: length }
            }
            OutputEvent::Phase(_) | OutputEvent::End(_) => continue,
        };
        if only.is_none_or(|stream| stream == chunk.stream) {
            printer.element(&chunk, |_| String::new())?;
        }
    }
    Ok(())
}

fn open(client: &Client, args: &LogsArgs, from: OutputCursor) -> api::client::OutputStream {
    if args.follow { client.follow(args.id, from) } else { client.output(args.id, from) }
}

fn passage(is_terminal: bool) -> Passage {
    if is_terminal { Passage::Escaped(Escaper::default()) } else { Passage::Exact }
}

async fn write(target: Target, bytes: Vec<u8>) -> Result<(), Failure> {
    Sink.write(target, bytes).await.map_err(Failure::stdout)
}

fn tell_gap(stream: StreamName, offset: u64, length: u64) {
    note(&format!("{length} bytes of {stream} from offset {offset} on no longer exist"));
}
