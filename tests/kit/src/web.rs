//! HTTPS by hand: sends exactly the bytes a test wants and reads the answer as it comes.
//!
//! For everything a proper client would never send; proper calls go through `api::client`.

use std::net::SocketAddr;

use anyhow::Context;
use common::tls::{self, ServerName, TlsConnector};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::house::House;
use crate::wait::PATIENCE;

/// Largest answer that is read: beyond it the test is about something else.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status; 0 when the connection was closed without one.
    pub status: u16,
    /// The lines before the body.
    pub head: String,
    /// What follows; chunks are put together.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; null when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The stable code of a problem body.
    #[must_use]
    pub fn code(&self) -> String {
        self.json().get("code").and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

/// Calls the API with the first operator's token. `path` and `body` are sent as they are.
///
/// # Errors
/// When there is no connection.
pub async fn call(house: &House, method: &str, path: &str, body: &[u8]) -> anyhow::Result<Answer> {
    let token = house.token()?;
    call_with(house, method, path, &["Content-Type: application/json", &format!("Authorization: Bearer {token}")], body)
        .await
}

/// Calls the API with these headers besides the ones without which nothing is HTTP.
///
/// # Errors
/// When there is no connection.
pub async fn call_with(
    house: &House,
    method: &str,
    path: &str,
    headers: &[&str],
    body: &[u8],
) -> anyhow::Result<Answer> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    for header in headers {
        request.push_str(header);
        request.push_str("\r\n");
    }
    if !body.is_empty() || method == "POST" {
        request.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    let mut bytes = request.into_bytes();
    bytes.extend_from_slice(body);
    send(house, &bytes).await
}

/// Sends these bytes to the API over TLS and reads until it closes.
///
/// # Errors
/// When there is no connection.
pub async fn send(house: &House, bytes: &[u8]) -> anyhow::Result<Answer> {
    let roots = tls::load_roots(&house.manager_dir().join("ca/ca.pem"))?;
    let socket = TcpStream::connect(house.api()).await?;
    let connector = TlsConnector::from(tls::api_client(roots, None)?);
    let mut stream = connector.connect(ServerName::try_from("localhost")?, socket).await?;
    let mut answer = Vec::new();
    let exchange = timeout(PATIENCE, async {
        // A server that refuses early may close before it has read everything: its answer counts.
        let written = stream.write_all(bytes).await;
        let _ = stream.flush().await;
        let read = (&mut stream).take(MAX_ANSWER).read_to_end(&mut answer).await;
        (written, read)
    });
    // What came before an end of any kind is the answer.
    drop(exchange.await.context("the API neither answered nor closed")?);
    Ok(parse(&answer))
}

/// Sends bytes without TLS to any port and reads what comes until the other side closes.
///
/// # Errors
/// When there is no connection or it stays open.
pub async fn plain(address: SocketAddr, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut socket = TcpStream::connect(address).await?;
    let mut answer = Vec::new();
    let exchange = timeout(PATIENCE, async {
        let written = socket.write_all(bytes).await;
        let read = (&mut socket).take(MAX_ANSWER).read_to_end(&mut answer).await;
        (written, read)
    });
    drop(exchange.await.context("the connection stayed open")?);
    Ok(answer)
}

fn parse(bytes: &[u8]) -> Answer {
    let split = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(bytes.len());
    let (head, rest) = bytes.split_at(split);
    let head = String::from_utf8_lossy(head).into_owned();
    let body = rest.get(4..).unwrap_or_default();
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    let mut answer = Answer { status, head, body: Vec::new() };
    let chunked = answer.header("transfer-encoding").is_some_and(|value| value.contains("chunked"));
    answer.body = if chunked { join(body) } else { body.to_vec() };
    answer
}

fn join(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let (line, after) = rest.split_at(end);
        let length = std::str::from_utf8(line).ok().and_then(|hex| usize::from_str_radix(hex.trim(), 16).ok());
        let Some((length @ 1.., chunk)) = length.zip(after.get(2..)) else { break };
        body.extend_from_slice(chunk.get(..length).unwrap_or(chunk));
        rest = chunk.get(length.saturating_add(2)..).unwrap_or_default();
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_apart() {
        let plain = parse(b"HTTP/1.1 404 Not Found\r\ncontent-length: 15\r\nX-A: b\r\n\r\n{\"code\":\"gone\"}");
        assert_eq!((plain.status, plain.code().as_str(), plain.header("x-a")), (404, "gone", Some("b")));
        let chunked = parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
        assert_eq!(chunked.body, b"abcde");
        assert_eq!(parse(b"").status, 0);
    }
}
