//! How calls are sent, repeated and read. The calls themselves stand in the file of their noun.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use common::backoff::Backoff;
use common::id::Uid;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, TE, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout_at};

use super::connection::{Connection, Dialer};
use super::endpoint::Endpoint;
use super::error::ClientError;
use crate::problem::Problem;

/// How long a call may take when nobody says otherwise, repeats included.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long a connection may take to open.
pub(super) const DIAL: Duration = Duration::from_secs(10);
/// How long a stream that broke is tried again before it is given up.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Pauses between repeats.
pub(super) const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Connections kept for the next call: more than one only where calls run at the same time.
const MAX_IDLE: usize = 8;
/// Largest answer that is read into memory: a page of a thousand commands with large arguments.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// A client of one manager. Clones share their connections.
#[derive(Clone)]
pub struct Client {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) dialer: Dialer,
    idle: Mutex<Vec<Connection>>,
    deadline: Duration,
    pub(super) patience: Duration,
}

/// Whether a call may be sent again when nobody knows what became of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// It reads, or sending it twice is the same as once.
    Yes,
    /// Only if it certainly was not sent.
    No,
}

/// One call, ready to be sent as often as needed.
pub(super) struct Call {
    pub(super) method: Method,
    path: String,
    body: Option<Bytes>,
    key: Option<Uid>,
    repeat: Repeat,
    pub(super) deadline: Duration,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Client").field(&self.shared.dialer.endpoint.address).finish()
    }
}

impl Client {
    /// Prepares a client; nothing is sent yet.
    ///
    /// # Errors
    /// When the CA certificate cannot be used.
    pub fn new(endpoint: Endpoint) -> Result<Self, ClientError> {
        Self::with_limits(endpoint, DEADLINE, PATIENCE)
    }

    /// Prepares a client with its own deadline for calls, and patience with streams that break.
    ///
    /// # Errors
    /// When the CA certificate cannot be used.
    pub fn with_limits(endpoint: Endpoint, deadline: Duration, patience: Duration) -> Result<Self, ClientError> {
        let shared = Shared { dialer: Dialer::new(endpoint)?, idle: Mutex::default(), deadline, patience };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Where this client goes.
    #[must_use]
    pub fn address(&self) -> String {
        self.shared.dialer.address()
    }

    /// A call without a body, sent once.
    pub(super) fn bare(&self, method: Method, path: String) -> Call {
        Call { method, path, body: None, key: None, repeat: Repeat::No, deadline: self.shared.deadline }
    }

    /// A call that reads.
    pub(super) fn get(&self, path: String) -> Call {
        self.bare(Method::GET, path).repeatable()
    }

    /// A call with a body, sent once.
    pub(super) fn post(&self, path: String, body: &impl Serialize) -> Result<Call, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::Invalid(error.into()))?;
        Ok(Call { body: Some(body.into()), ..self.bare(Method::POST, path) })
    }

    /// Sends a call and reads its answer.
    pub(super) async fn call<T: DeserializeOwned>(&self, call: Call) -> Result<T, ClientError> {
        let body = self.send(&call).await?;
        serde_json::from_slice(&body).map_err(|error| ClientError::Malformed {
            what: format!("{} {}", call.method, call.path),
            source: error.into(),
        })
    }

    /// Sends a call, repeats it as long as that is right, and reads the whole answer.
    pub(super) async fn send(&self, call: &Call) -> Result<Bytes, ClientError> {
        let started = Instant::now();
        let until = started + call.deadline;
        let mut pauses = Backoff::new(PAUSES.0, PAUSES.1);
        let mut was_reached = false;
        loop {
            let tried = timeout_at(until, self.attempt(call)).await;
            let error = match tried {
                Ok(Ok(body)) => return Ok(body),
                Ok(Err(error)) => error,
                Err(_) => return Err(ClientError::Deadline { address: self.address(), limit: call.deadline }),
            };
            was_reached |= !matches!(error, ClientError::Unreachable { .. });
            // Nobody there at the first try is an answer for a person who waits; nobody there after a break is a restart.
            let again = call.repeat == Repeat::Yes && error.is_transient() && was_reached;
            let pause = pauses.next();
            if !again || Instant::now() + pause >= until {
                return Err(error);
            }
            sleep(pause).await;
        }
    }

    async fn attempt(&self, call: &Call) -> Result<Bytes, ClientError> {
        let (connection, answer) = self.open(|| self.request(call, None), call.repeat == Repeat::Yes).await?;
        self.collect(connection, answer).await
    }

    /// Sends a request on a kept connection, or on a new one when that has broken meanwhile.
    async fn open(
        &self,
        request: impl Fn() -> Result<Request<Full<Bytes>>, ClientError>,
        repeatable: bool,
    ) -> Result<(Connection, Response<Incoming>), ClientError> {
        let mut broken = None;
        loop {
            let mut connection = match self.kept().await {
                Some(connection) => connection,
                None => match (self.shared.dialer.dial(DIAL).await, broken) {
                    (Ok(connection), _) => connection,
                    // Whoever took the call before is away now: that is a break, not an address where nobody is.
                    (Err(_), Some(error)) => return Err(self.shared.dialer.lost(error)),
                    (Err(error), None) => return Err(error),
                },
            };
            let fresh = connection.is_fresh();
            match connection.send(request()?).await {
                Ok(answer) => return Ok((connection, answer)),
                // The manager closed it just as we wanted to use it: no reason to trouble anybody.
                Err(error) if !fresh && (repeatable || error.is_canceled()) => broken = Some(error),
                Err(error) => return Err(self.shared.dialer.lost(error)),
            }
        }
    }

    async fn kept(&self) -> Option<Connection> {
        loop {
            let mut connection = self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if connection.is_usable().await {
                return Some(connection);
            }
        }
    }

    /// Opens an answer that is read piece by piece.
    pub(super) async fn stream(
        &self,
        path: &str,
        accept: &'static str,
        last_event: Option<String>,
    ) -> Result<(Connection, Response<Incoming>), ClientError> {
        let call = self.get(path.to_owned());
        let limit = self.shared.deadline;
        let opened = async {
            let request = || {
                let mut request = self.request(&call, Some(accept))?;
                // Without it a server leaves out the trailers, and a gap would look like the end.
                request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
                if let Some(id) = &last_event {
                    let value = id
                        .parse()
                        .map_err(|error: http::header::InvalidHeaderValue| ClientError::Invalid(error.into()))?;
                    request.headers_mut().insert("last-event-id", value);
                }
                Ok(request)
            };
            let (connection, answer) = self.open(request, true).await?;
            if answer.status().is_success() {
                return Ok((connection, answer));
            }
            match self.collect(connection, answer).await {
                Err(error) => Err(error),
                Ok(_) => Err(self.shared.dialer.lost("an answer changed its mind")),
            }
        };
        tokio::time::timeout(limit, opened)
            .await
            .unwrap_or_else(|_| Err(ClientError::Deadline { address: self.address(), limit }))
    }

    fn request(&self, call: &Call, accept: Option<&'static str>) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut request = Request::builder()
            .method(&call.method)
            .uri(&call.path)
            .header(HOST, self.shared.dialer.authority())
            .header(USER_AGENT, concat!("paprika/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, accept.unwrap_or("application/json"));
        if let Some(token) = &self.shared.dialer.endpoint.token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        if let Some(key) = &call.key {
            request = request.header("idempotency-key", key.to_string());
        }
        if call.body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        request
            .body(Full::new(call.body.clone().unwrap_or_default()))
            .map_err(|error| ClientError::Invalid(error.into()))
    }

    /// Reads a whole answer, keeps the connection, and turns a refusal into an error.
    async fn collect(&self, mut connection: Connection, answer: Response<Incoming>) -> Result<Bytes, ClientError> {
        let (head, mut body) = answer.into_parts();
        let mut bytes = BytesMut::new();
        while let Some(frame) = connection.frame(&mut body).await {
            let frame = frame.map_err(|error| self.shared.dialer.lost(error))?;
            if let Some(data) = frame.data_ref() {
                if bytes.len() + data.len() > MAX_ANSWER {
                    return Err(self.shared.dialer.lost("the answer is larger than any answer should be"));
                }
                bytes.extend_from_slice(data);
            }
        }
        drop(body);
        self.keep(connection);
        if head.status.is_success() { Ok(bytes.freeze()) } else { Err(refusal(head.status, &bytes)) }
    }

    /// Keeps a connection whose answer was read to its end.
    pub(super) fn keep(&self, connection: Connection) {
        let mut idle = self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE {
            idle.push(connection);
        }
    }
}

impl Call {
    /// Gives it a key, so that the manager makes a repeat the same call.
    pub(super) fn keyed(mut self) -> Self {
        self.key = Some(Uid::random());
        self.repeatable()
    }

    /// Says that sending it twice is the same as once.
    pub(super) fn repeatable(mut self) -> Self {
        self.repeat = Repeat::Yes;
        self
    }
}

fn refusal(status: StatusCode, body: &[u8]) -> ClientError {
    let problem = serde_json::from_slice(body).unwrap_or_else(|_| {
        // Something between us and the manager may have answered.
        let start = String::from_utf8_lossy(body.get(..body.len().min(200)).unwrap_or_default()).into_owned();
        Problem::new(status.as_u16(), "http", status.canonical_reason().unwrap_or("unexpected status")).detail(start)
    });
    ClientError::Problem(Box::new(problem))
}

/// The path of one page of a list.
pub(super) fn list(path: &str, after: Option<&str>, limit: Option<u32>) -> String {
    let mut words = Words::default();
    words.add("after", after);
    words.add("limit", limit);
    words.behind(path)
}

/// The query of a URL.
#[derive(Default)]
pub(super) struct Words(String);

impl Words {
    pub(super) fn add(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            let between = if self.0.is_empty() { '?' } else { '&' };
            self.0.push(between);
            self.0.push_str(name);
            self.0.push('=');
            self.0.push_str(&escaped(&value.to_string()));
        }
    }

    pub(super) fn behind(&self, path: &str) -> String {
        format!("{path}{}", self.0)
    }
}

/// Writes a text so that it is one part of a URL.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            // Writing into a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_hold_any_text() {
        let mut words = Words::default();
        words.add("after", Some("a b&c/ä"));
        words.add("job", None::<u64>);
        words.add("limit", Some(3));
        assert_eq!(words.behind("/x"), "/x?after=a%20b%26c%2F%C3%A4&limit=3");
    }

    #[test]
    fn a_refusal_without_a_problem_body_still_tells_what_came() {
        let error = refusal(StatusCode::BAD_GATEWAY, b"<html>proxy</html>");
        let problem = error.problem().cloned();
        assert_eq!(problem.as_ref().map(|problem| problem.status), Some(502));
        assert_eq!(problem.and_then(|problem| problem.detail).as_deref(), Some("<html>proxy</html>"));
    }
    /// Reads one request to the end of its head and body of known length.
    async fn hear(peer: &mut tokio::net::UnixStream) -> std::io::Result<String> {
        use tokio::io::AsyncReadExt;
        let mut heard = Vec::new();
        let mut block = [0; 4096];
        while !heard.ends_with(b"}") {
            let got = peer.read(&mut block).await?;
            if got == 0 {
                break;
            }
            heard.extend_from_slice(block.get(..got).unwrap_or_default());
        }
        Ok(String::from_utf8_lossy(&heard).into_owned())
    }

    fn key_in(request: &str) -> Option<&str> {
        request.lines().find_map(|line| line.strip_prefix("idempotency-key: "))
    }

    #[tokio::test]
    async fn a_keyed_call_on_a_kept_connection_outlives_a_restart_of_the_manager() -> anyhow::Result<()> {
        use tokio::io::AsyncWriteExt;
        const ANSWER: &[u8] = b"HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("api.sock");
        let client = Client::new(Endpoint::unix(&path))?;
        let submit = || async {
            let call = client.post("/x".to_owned(), &serde_json::json!({ "a": 1 }))?.keyed();
            client.send(&call).await
        };
        let listener = tokio::net::UnixListener::bind(&path)?;
        let manager = async {
            let (mut peer, _) = listener.accept().await?;
            hear(&mut peer).await?;
            peer.write_all(ANSWER).await?;
            let taken = hear(&mut peer).await?;
            // It dies after it took the second call: the socket file stays, nobody listens.
            drop(listener);
            drop(peer);
            tokio::time::sleep(Duration::from_millis(200)).await;
            std::fs::remove_file(&path)?;
            let again = tokio::net::UnixListener::bind(&path)?;
            let (mut peer, _) = again.accept().await?;
            let repeated = hear(&mut peer).await?;
            peer.write_all(ANSWER).await?;
            anyhow::Ok((taken, repeated))
        };
        let caller = async {
            submit().await?;
            anyhow::Ok(submit().await?)
        };
        let (heard, answered) = tokio::join!(manager, caller);
        let (taken, repeated) = heard?;
        assert_eq!(answered?, Bytes::from_static(b"{}"));
        assert!(key_in(&taken).is_some_and(|key| Some(key) == key_in(&repeated)), "the same key both times");
        Ok(())
    }
}
