//! Reads a stream of server-sent events: bytes in, events out. The parser does no I/O.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::calls::Client;
use super::connection::Connection;
use super::error::ClientError;

/// Longest silence: the manager sends a comment each 15 s.
const SILENCE: Duration = Duration::from_secs(45);
/// Largest line: the JSON of a command with the largest arguments.
const MAX_LINE: usize = 8 * 1024 * 1024;

/// One event as it stands in the stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SseEvent {
    pub(super) name: String,
    pub(super) id: Option<String>,
    pub(super) data: String,
}

/// Puts events together from pieces of any size.
#[derive(Debug, Default)]
pub(super) struct Parser {
    buffer: BytesMut,
    searched: usize,
    event: SseEvent,
    has_data: bool,
}

/// A line is longer than any event should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a line of the event stream is longer than {MAX_LINE} bytes")]
pub(super) struct TooLong;

impl Parser {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Takes the next whole event; `None` when more bytes are needed.
    pub(super) fn next(&mut self) -> Result<Option<SseEvent>, TooLong> {
        loop {
            let rest = self.buffer.get(self.searched..).unwrap_or_default();
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                self.searched = self.buffer.len();
                return if self.searched > MAX_LINE { Err(TooLong) } else { Ok(None) };
            };
            let line = self.buffer.split_to(self.searched + end);
            self.buffer.advance(1);
            self.searched = 0;
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            if line.is_empty() {
                let event = std::mem::take(&mut self.event);
                // An event without data is none, says the standard.
                if std::mem::take(&mut self.has_data) {
                    return Ok(Some(event));
                }
                continue;
            }
            self.line(&String::from_utf8_lossy(line));
        }
    }

    fn line(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => value.clone_into(&mut self.event.name),
            "id" => self.event.id = Some(value.to_owned()),
            "data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
                self.has_data = true;
            }
            // Comments have no name; `retry` and unknown fields mean nothing to us.
            _ => {}
        }
    }
}

/// An open stream of events.
pub(super) struct SseStream {
    client: Client,
    connection: Connection,
    body: Incoming,
    parser: Parser,
}

impl SseStream {
    pub(super) async fn open(client: &Client, path: &str, last_event: Option<String>) -> Result<Self, ClientError> {
        let (connection, answer) = client.stream(path, "text/event-stream", last_event).await?;
        Ok(Self { client: client.clone(), connection, body: answer.into_body(), parser: Parser::default() })
    }

    /// Waits for the next event; `None` when the manager ended the stream.
    ///
    /// # Cancel safety
    /// Safe: bytes that were read stay in the parser.
    pub(super) async fn next(&mut self) -> Result<Option<SseEvent>, ClientError> {
        loop {
            if let Some(event) = self.parser.next().map_err(|error| self.client.shared.dialer.lost(error))? {
                return Ok(Some(event));
            }
            let frame = timeout(SILENCE, self.connection.frame(&mut self.body))
                .await
                .map_err(|_| ClientError::Deadline { address: self.client.address(), limit: SILENCE })?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(self.client.shared.dialer.lost(error)),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.parser.push(data);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const STREAM: &str = ": hello\n\nid: stdout=3\nevent: output\ndata: {\"a\":1}\n\nevent: empty\n\r\ndata:x\r\ndata: y\r\n\r\ndata: cut";

    fn events(pieces: impl Iterator<Item = Vec<u8>>) -> Vec<SseEvent> {
        let mut parser = Parser::default();
        let mut events = Vec::new();
        for piece in pieces {
            parser.push(&piece);
            while let Some(event) = parser.next().unwrap() {
                events.push(event);
            }
        }
        events
    }

    #[test]
    fn events_are_the_same_in_pieces_of_any_size() {
        let event = |name: &str, id: Option<&str>, data: &str| SseEvent {
            name: name.to_owned(),
            id: id.map(str::to_owned),
            data: data.to_owned(),
        };
        let expected = [event("output", Some("stdout=3"), "{\"a\":1}"), event("", None, "x\ny")];
        for size in 1..=STREAM.len() {
            assert_eq!(events(STREAM.as_bytes().chunks(size).map(<[u8]>::to_vec)), expected, "{size}");
        }
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut parser = Parser::default();
        parser.push(&vec![b'a'; MAX_LINE]);
        assert_eq!(parser.next(), Ok(None));
        parser.push(b"a");
        assert_eq!(parser.next(), Err(TooLong));
    }
}
