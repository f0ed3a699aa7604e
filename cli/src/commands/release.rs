//! `release`: lets commands go that wait since the manager's store was restored from an older copy.

use api::client::Client;

use super::each::each;
use crate::args::ReleaseArgs;
use crate::error::Failure;
use crate::output::Printer;

pub(super) async fn run(client: &Client, printer: Printer, args: &ReleaseArgs) -> Result<u8, Failure> {
    each(
        printer,
        &args.ids,
        async |id| client.release(id).await,
        |command| format!("{}  {}  released: {}\n", command.id, command.agent, command.phase),
    )
    .await
}
