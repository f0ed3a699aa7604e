//! `release`: lets commands go that wait since the manager's store was restored from an older copy.

use api::client::Client;

use crate::args::ReleaseArgs;
use crate::error::Failure;
use crate::output::Printer;

pub(super) async fn run(client: &Client, printer: Printer, args: &ReleaseArgs) -> Result<u8, Failure> {
    let mut code = 0;
    for id in &args.ids {
        match client.release(*id).await {
            Ok(command) => printer.element(&command, |command| {
                format!("{}  {}  released: {}\n", command.id, command.agent, command.phase)
            })?,
            Err(error) => {
                let failure = Failure::from(error);
                failure.tell();
                if code == 0 {
                    code = failure.kind().exit_code();
                }
            }
        }
    }
    Ok(code)
}
