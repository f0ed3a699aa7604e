//! From a parsed verb to its file, and from its end to an exit code.

use super::{
    agent, agents, audit, ca, cancel, completions, ending, events, join_token, list, login, logs, op, operator, pause,
    release, remote, run, show, site, status, token, whoami,
};
use crate::args::{Client, Globals, SiteVerb, needs};
use crate::error::{Failure, Kind};
use crate::output::Printer;

/// Does what a verb says and returns the exit code; failures are printed with their hints.
///
/// `tree` is the whole command line, which only `completions` needs.
#[must_use]
pub fn execute(globals: &Globals, verb: Client, tree: impl FnOnce() -> clap::Command) -> u8 {
    // Whoever reads the exit code of `run` must be able to tell our failures from those of the program.
    let is_run = matches!(verb, Client::Run(_));
    let needs = needs(&verb);
    match attempt(globals, verb, tree) {
        Ok(code) => code,
        Err(failure) => {
            let failure = failure.needing(needs);
            if !failure.is_closed_pipe() {
                failure.tell(globals.format);
            }
            exit_code(&failure, is_run)
        }
    }
}

fn exit_code(failure: &Failure, is_run: bool) -> u8 {
    match (is_run, failure.is_closed_pipe()) {
        (true, _) => ending::OUR_FAILURE,
        // `paprika commands | head` did all it was asked for.
        (false, true) => 0,
        (false, false) => failure.kind().exit_code(),
    }
}

fn attempt(globals: &Globals, verb: Client, tree: impl FnOnce() -> clap::Command) -> Result<u8, Failure> {
    let printer = Printer { format: globals.format };
    match &verb {
        Client::Completions(args) => return completions::run(args, tree()).map(|()| 0),
        Client::Site(args) if let SiteVerb::Check(args) = &args.verb => return site::check(printer, &args.folder),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Kind::Work, "the runtime cannot start").because(error))?;
    let ended = runtime.block_on(async {
        match &verb {
            Client::Login(args) => login::run(printer, args).await.map(|()| 0),
            _ => dispatch(&remote::connect(globals)?, printer, verb).await,
        }
    });
    // A write that still waits for a slow reader must not hold the exit.
    runtime.shutdown_background();
    ended
}

async fn dispatch(client: &api::client::Client, printer: Printer, verb: Client) -> Result<u8, Failure> {
    match verb {
        Client::Run(args) => run::run(client, printer, &args).await,
        Client::Op(args) => op::run(client, printer, &args).await,
        Client::Logs(args) => logs::run(client, printer, &args).await.map(|()| 0),
        Client::Commands(args) => list::run(client, printer, args).await.map(|()| 0),
        Client::Show(args) => show::run(client, printer, &args).await.map(|()| 0),
        Client::Cancel(args) => cancel::run(client, printer, &args).await,
        Client::Pause(args) => pause::pause(client, printer, &args).await,
        Client::Resume(args) => pause::resume(client, printer, &args).await,
        Client::Release(args) => release::run(client, printer, &args).await,
        Client::Agents(args) => agents::run(client, printer, &args).await.map(|()| 0),
        Client::Agent(args) => agent::run(client, printer, &args.verb).await.map(|()| 0),
        Client::JoinToken(args) => join_token::run(client, printer, &args.verb).await.map(|()| 0),
        Client::Token(args) => token::run(client, printer, &args.verb).await.map(|()| 0),
        Client::Operator(args) => operator::run(client, printer, &args.verb).await.map(|()| 0),
        Client::Whoami => whoami::run(client, printer).await.map(|()| 0),
        Client::Site(args) => site::run(client, printer, &args.verb).await,
        Client::Audit(args) => audit::run(client, printer, &args).await,
        Client::Ca(args) => ca::run(client, printer, &args.verb).await.map(|()| 0),
        Client::Events(args) => events::run(client, printer, &args).await.map(|()| 0),
        Client::Status => status::run(client, printer).await.map(|()| 0),
        // They were done before there was a client.
        Client::Completions(_) | Client::Login(_) => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn failures_of_run_are_never_taken_for_the_programs() {
        for kind in [Kind::Work, Kind::Usage, Kind::Denied, Kind::NotFound, Kind::Unreachable] {
            let failure = Failure::new(kind, "x");
            assert_eq!(exit_code(&failure, true), 125);
            assert_eq!(exit_code(&failure, false), kind.exit_code());
        }
    }

    #[test]
    fn a_reader_that_has_enough_is_no_failure() {
        let failure = Failure::stdout(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(exit_code(&failure, false), 0);
        assert_eq!(exit_code(&failure, true), 125);
    }
}
