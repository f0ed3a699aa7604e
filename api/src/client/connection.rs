//! One HTTP/1.1 connection to the manager. It moves only while somebody awaits one of its methods, so it needs no task.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use common::tls::{self, ClientConfig, HandshakeFault, MANAGER_DNS, ServerName, TlsConnector};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::endpoint::{Address, Anchors, Endpoint};
use super::error::{Cause, ClientError};

/// Largest head of an answer: ours have a few hundred bytes.
const MAX_HEAD: usize = 64 * 1024;

/// Both kinds of sockets look the same from here on.
trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// What connections to one endpoint have in common; cheap to keep, made once.
pub(super) struct Dialer {
    pub(super) endpoint: Endpoint,
    tls: Option<Arc<ClientConfig>>,
}

impl Dialer {
    pub(super) fn new(endpoint: Endpoint) -> Result<Self, ClientError> {
        let untrusted = |source: Cause| ClientError::Untrusted { address: endpoint.address.to_string(), source };
        let tls = match &endpoint.address {
            Address::Unix(_) => None,
            Address::Tls { .. } => Some(configured(&endpoint).map_err(untrusted)?),
        };
        Ok(Self { endpoint, tls })
    }

    /// One that only looks at the authority a manager shows.
    pub(super) fn looking(endpoint: Endpoint) -> Result<(Self, Arc<tls::Glimpse>), ClientError> {
        let (config, glimpse) = tls::api_client_looking()
            .map_err(|error| ClientError::Untrusted { address: endpoint.address.to_string(), source: error.into() })?;
        Ok((Self { endpoint, tls: Some(config) }, glimpse))
    }

    pub(super) fn address(&self) -> String {
        self.endpoint.address.to_string()
    }

    /// What stands in the `Host` header.
    pub(super) fn authority(&self) -> String {
        match &self.endpoint.address {
            Address::Tls { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Address::Tls { host, port } => format!("{host}:{port}"),
            Address::Unix(_) => "localhost".to_owned(),
        }
    }

    pub(super) fn lost(&self, source: impl Into<Cause>) -> ClientError {
        ClientError::Lost { address: self.address(), source: source.into() }
    }

    /// Opens a connection within `limit`.
    pub(super) async fn dial(&self, limit: Duration) -> Result<Connection, ClientError> {
        let dialed = timeout(limit, async {
            match (&self.endpoint.address, &self.tls) {
                (Address::Unix(path), _) => {
                    let socket = UnixStream::connect(path).await.map_err(|error| self.unreachable(error))?;
                    self.speak(socket).await
                }
                (Address::Tls { host, port }, Some(tls)) => {
                    let socket = self.dial_tls(host, *port, tls).await?;
                    self.speak(socket).await
                }
                (Address::Tls { .. }, None) => Err(self.unreachable(io::Error::other("there is no TLS configuration"))),
            }
        });
        dialed.await.unwrap_or_else(|_| Err(ClientError::Deadline { address: self.address(), limit }))
    }

    /// Opens a TLS connection and says nothing on it.
    pub(super) async fn shake_hands(&self, limit: Duration) -> Result<tls::client::TlsStream<TcpStream>, ClientError> {
        match (&self.endpoint.address, &self.tls) {
            (Address::Tls { host, port }, Some(tls)) => timeout(limit, self.dial_tls(host, *port, tls))
                .await
                .unwrap_or_else(|_| Err(ClientError::Deadline { address: self.address(), limit })),
            _ => Err(self.unreachable(io::Error::other("a Unix socket has no certificate"))),
        }
    }

    /// Opens a TLS connection. The manager's certificate is good for the host we dial, or for the fixed name that every
    /// manager of this CA carries: a manager behind another address than it knows of is still the one we trust.
    async fn dial_tls(
        &self,
        host: &str,
        port: u16,
        config: &Arc<ClientConfig>,
    ) -> Result<tls::client::TlsStream<TcpStream>, ClientError> {
        let names = [host, MANAGER_DNS].map(|name| ServerName::try_from(name.to_owned()));
        let mut last: Cause = "the host is not a name that a certificate can carry".into();
        for name in names.into_iter().flatten() {
            let socket = TcpStream::connect((host, port)).await.map_err(|error| self.unreachable(error))?;
            // Requests are small and wait for their answers: Nagle would only delay them.
            socket.set_nodelay(true).map_err(|error| self.unreachable(error))?;
            match TlsConnector::from(Arc::clone(config)).connect(name, socket).await {
                Ok(stream) => return Ok(stream),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    // Only the name may be another: what else is wrong is wrong under every name.
                    let fault = tls::fault(&error);
                    let is_final = fault.as_ref().is_some_and(|fault| *fault != HandshakeFault::WrongName);
                    last = fault.map_or_else(|| error.into(), Into::into);
                    if is_final {
                        break;
                    }
                }
                Err(error) => return Err(self.lost(error)),
            }
        }
        Err(ClientError::Untrusted { address: self.address(), source: last })
    }

    async fn speak(&self, socket: impl Io + 'static) -> Result<Connection, ClientError> {
        let socket: Pin<Box<dyn Io>> = Box::pin(socket);
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .handshake::<_, Full<Bytes>>(TokioIo::new(socket))
            .await
            .map_err(|error| self.lost(error))?;
        let driver = Box::pin(async move { driver.await.err() });
        Ok(Connection { sender, driver: Some(driver), fresh: true })
    }

    fn unreachable(&self, source: io::Error) -> ClientError {
        ClientError::Unreachable { address: self.address(), source: source.into() }
    }
}

/// What we trust and what we show, as TLS wants it.
fn configured(endpoint: &Endpoint) -> Result<Arc<ClientConfig>, Cause> {
    let roots = match &endpoint.anchors {
        Anchors::None => return Err("no CA certificate is named: set PAPRIKA_CA to the manager's ca.pem".into()),
        Anchors::Pin(pin) => return Ok(tls::api_client_pinned(*pin)?),
        Anchors::File(path) => tls::load_roots(path)?,
        Anchors::Pem(pem) => tls::roots_from_pem(pem)?,
    };
    let own = match &endpoint.own {
        Some(files) => Some((tls::load_chain(&files.certificate)?, tls::load_key(&files.key)?)),
        None => None,
    };
    Ok(tls::api_client(roots, own)?)
}

/// An open connection.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: Option<Pin<Box<dyn Future<Output = Option<hyper::Error>> + Send>>>,
    /// Nothing was answered on it yet: a failure is not that of a connection that grew old.
    fresh: bool,
}

impl Connection {
    pub(super) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Lets the connection notice what happened while it was idle, and tells whether it can still be used.
    pub(super) async fn is_usable(&mut self) -> bool {
        poll_fn(|context| {
            if let Some(driver) = &mut self.driver
                && driver.as_mut().poll(context).is_ready()
            {
                self.driver = None;
            }
            Poll::Ready(())
        })
        .await;
        self.driver.is_some() && self.sender.is_ready()
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// # Cancel safety
    /// Not safe: afterwards the connection must not be used again.
    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, hyper::Error> {
        let answer = self.sender.send_request(request);
        let answer = Self::drive(&mut self.driver, answer).await?;
        self.fresh = false;
        Ok(answer)
    }

    /// Waits for the next part of a body; `None` behind the last.
    ///
    /// # Cancel safety
    /// Safe: a part is either returned or still there.
    pub(super) async fn frame(&mut self, body: &mut Incoming) -> Option<Result<Frame<Bytes>, hyper::Error>> {
        self.with(body.frame()).await
    }

    async fn with<F: Future>(&mut self, work: F) -> F::Output {
        Self::drive(&mut self.driver, work).await
    }

    /// Runs the connection until `work` is done. When the connection ends first, `work` hears of it by itself.
    async fn drive<F: Future>(
        driver: &mut Option<Pin<Box<dyn Future<Output = Option<hyper::Error>> + Send>>>,
        work: F,
    ) -> F::Output {
        let mut work = std::pin::pin!(work);
        poll_fn(|context| {
            if let Poll::Ready(output) = work.as_mut().poll(context) {
                return Poll::Ready(output);
            }
            if let Some(running) = driver
                && running.as_mut().poll(context).is_ready()
            {
                *driver = None;
            }
            // What the driver just read may have finished the work.
            work.as_mut().poll(context)
        })
        .await
    }
}
