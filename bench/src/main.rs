//! The benchmarks behind `docs/performance.md`: every figure of the command path that has a goal, printed as a table
//! beside what the same run measured of the machine itself.
//!
//! It starts whole houses (`paprika dev`) as processes of their own and talks to them as any client does. It asserts
//! nothing: figures are read by people, tests hold the bounds.

mod baseline;
mod commands;
mod execution;
mod fleet;
mod fleets;
mod flood;
mod house;
mod idle;
mod report;
mod stats;
mod streams;
mod submits;
mod witness;

use clap::{Parser, ValueEnum};
use report::{Figure, table};

/// Measures a release build of Paprika on this machine.
#[derive(Debug, Parser)]
struct Args {
    /// What to measure; everything when nothing is named.
    #[arg(value_enum)]
    what: Vec<What>,
    /// Fewer rounds and smaller fleets: a look, not a figure.
    #[arg(long)]
    quick: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Round trips and commands per second.
    Commands,
    /// Durable submits per second.
    Submits,
    /// Fan-out, reconnect and memory with thousands of emulated agents.
    Fleets,
    /// Output throughput, line delay, cancel under a flood.
    Streams,
    /// Start latency, cost of the shim, commands beside bare loops, output to disk, ten gigabytes of one command.
    Execution,
    /// Of `execution` only the round trips beside ten gigabytes of one command.
    Flood,
    /// Memory and processor time of processes that have nothing to do.
    Idle,
}

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(played) = witness::play(&words) {
        return played;
    }
    let args = Args::parse();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(print(args))
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark speaks to the terminal")]
async fn print(args: Args) -> anyhow::Result<()> {
    let what = if args.what.is_empty() {
        vec![What::Commands, What::Submits, What::Streams, What::Execution, What::Fleets, What::Idle]
    } else {
        args.what
    };
    let mut figures: Vec<Figure> = Vec::new();
    for part in what {
        eprintln!("measuring {part:?} …");
        let measured = match part {
            What::Commands => commands::measure(args.quick).await,
            What::Submits => submits::measure(args.quick).await,
            What::Fleets => fleets::measure(args.quick).await,
            What::Streams => streams::measure(args.quick).await,
            What::Execution => execution::measure(args.quick).await,
            What::Flood => flood::alone(args.quick).await,
            What::Idle => idle::measure(args.quick).await,
        };
        match measured {
            Ok(more) => figures.extend(more),
            Err(error) => figures.push(Figure::plain(format!("{part:?}"), format!("NOT MEASURED: {error:#}"))),
        }
    }
    let cores = std::thread::available_parallelism()?;
    println!("machine: {cores} cores; manager, agents and callers share them\n");
    println!("{}", table(&figures));
    Ok(())
}
