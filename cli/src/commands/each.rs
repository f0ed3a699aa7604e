//! One call for each of several commands: each is asked for even when another cannot be.

use api::client::ClientError;
use serde::Serialize;

use crate::args::CONTROL;
use crate::error::Failure;
use crate::output::Printer;

/// Asks for each id and prints each answer; failures are told at once. The code is that of the first failure, because
/// it is the one that people look at.
pub(super) async fn each<T: Serialize>(
    printer: Printer,
    ids: &[u64],
    mut ask: impl AsyncFnMut(u64) -> Result<T, ClientError>,
    for_people: impl Fn(&T) -> String,
) -> Result<u8, Failure> {
    let mut code = 0;
    for id in ids {
        match ask(*id).await {
            Ok(answer) => printer.element(&answer, &for_people)?,
            Err(error) => {
                let failure = Failure::from(error).needing(CONTROL);
                failure.tell(printer.format);
                if code == 0 {
                    code = failure.kind().exit_code();
                }
            }
        }
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use api::problem::Problem;

    use super::*;
    use crate::args::Format;

    #[test]
    fn every_id_is_asked_for_and_the_first_failure_gives_the_code() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut asked = Vec::new();
        let ask = async |id| {
            asked.push(id);
            let status = match id {
                1 => return Ok(id),
                2 => 404,
                _ => 403,
            };
            Err(ClientError::Problem(Box::new(Problem::new(status, "x", "x"))))
        };
        let printer = Printer { format: Format::Table };
        let code = runtime.block_on(each(printer, &[2, 3, 1], ask, |_| String::new())).unwrap();
        assert_eq!((code, asked), (4, vec![2, 3, 1]));
    }
}
