//! A scripted agent: says exactly what a test wants, and looks at every frame.

use bytes::BytesMut;
use common::handshake::{HelloParams, Welcome, hello, read_welcome};
use common::id::Uid;
use common::limits::MAX_FRAME;
use common::link::Reader;
use common::wire::frame::Body;
use common::wire::{self, Frame, bye, command_ack, nak};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::timeout;

use crate::house::BOUND;

pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

pub struct Peer {
    reader: Reader<ReadHalf<Box<dyn Stream>>>,
    write: WriteHalf<Box<dyn Stream>>,
    seq: u64,
}

impl Peer {
    pub fn new(io: impl Stream + 'static) -> Self {
        let (read, write) = tokio::io::split(Box::new(io) as Box<dyn Stream>);
        Self { reader: Reader::new(read, MAX_FRAME), write, seq: 0 }
    }

    pub async fn send(&mut self, body: Body) -> u64 {
        self.reply(0, body).await
    }

    pub async fn reply(&mut self, reply_to: u64, body: Body) -> u64 {
        self.seq += 1;
        self.raw(&Frame { seq: self.seq, reply_to, may_ignore: false, body: Some(body) }).await;
        self.seq
    }

    /// The same to a manager that may have closed; `None` when it has.
    pub async fn try_reply(&mut self, reply_to: u64, body: Body) -> Option<u64> {
        self.seq += 1;
        let mut bytes = BytesMut::new();
        let frame = Frame { seq: self.seq, reply_to, may_ignore: false, body: Some(body) };
        common::frame::encode(&frame, &mut bytes).unwrap();
        let written = self.write.write_all(&bytes).await;
        written.and(self.write.flush().await).ok().map(|()| self.seq)
    }

    /// Sends a frame as it is, with whatever is odd about it.
    pub async fn raw(&mut self, frame: &Frame) {
        let mut bytes = BytesMut::new();
        common::frame::encode(frame, &mut bytes).unwrap();
        self.bytes(&bytes).await;
    }

    /// Sends bytes that may be no frame.
    pub async fn bytes(&mut self, bytes: &[u8]) {
        self.write.write_all(bytes).await.unwrap();
        self.write.flush().await.unwrap();
    }

    /// The next frame; `None` when the manager closed.
    pub async fn next(&mut self) -> Option<Frame> {
        timeout(BOUND, self.reader.next()).await.expect("the manager says something").unwrap_or(None)
    }

    pub async fn body(&mut self) -> Body {
        self.next().await.expect("a frame").body.expect("a body")
    }

    pub async fn hello(&mut self, params: &HelloParams) {
        self.send(hello(params)).await;
    }

    pub async fn welcome(&mut self) -> Welcome {
        let frame = self.next().await.expect("an answer to the hello");
        read_welcome(&frame).unwrap()
    }

    /// Waits for the manager's goodbye and the end of the stream.
    pub async fn bye(&mut self) -> (bye::Code, String) {
        let mut said = None;
        while let Some(frame) = self.next().await {
            if let Some(Body::Bye(bye)) = frame.body {
                said = Some((bye.code(), bye.reason));
            }
        }
        said.expect("a goodbye")
    }

    /// Sends an inventory of one page and answers what the manager judged.
    pub async fn settle(&mut self, items: Vec<wire::InventoryItem>) -> Vec<wire::ReconcileItem> {
        self.send(Body::Inventory(wire::Inventory { items, last: true })).await;
        match self.body().await {
            Body::Reconcile(reconcile) => {
                assert!(reconcile.last);
                reconcile.items
            }
            other => panic!("expected a Reconcile, got {other:?}"),
        }
    }

    pub async fn command(&mut self) -> (u64, wire::Command) {
        let frame = self.next().await.expect("a Command");
        match frame.body {
            Some(Body::Command(command)) => (frame.seq, command),
            other => panic!("expected a Command, got {other:?}"),
        }
    }

    pub async fn accept(&mut self, seq: u64, command: &wire::Command) {
        let ack = wire::CommandAck {
            uid: command.uid.clone(),
            answer: command_ack::Answer::Accepted.into(),
            ..Default::default()
        };
        self.reply(seq, Body::CommandAck(ack)).await;
    }

    pub async fn output(&mut self, command: &wire::Command, offset: u64, data: &[u8]) {
        self.send(Body::CommandOutput(output(command, offset, data))).await;
    }

    pub async fn finish(&mut self, command: &wire::Command, stdout: u64) -> u64 {
        self.send(Body::CommandResult(result(command, stdout))).await
    }

    pub async fn acked(&mut self) -> Uid {
        loop {
            match self.body().await {
                Body::ResultAck(ack) => return Uid::from_wire(&ack.uid).unwrap(),
                Body::OutputCredit(_) => {}
                other => panic!("expected a ResultAck, got {other:?}"),
            }
        }
    }

    pub async fn nak(&mut self) -> nak::Code {
        match self.body().await {
            Body::Nak(nak) => nak.code(),
            other => panic!("expected a Nak, got {other:?}"),
        }
    }

    /// Shows that the manager has said everything it had to say: the answer to this ping is the next frame.
    pub async fn nothing_waits(&mut self) {
        let seq = self.send(Body::Ping(wire::Ping::default())).await;
        let mut frame = self.next().await.expect("a Pong");
        // A test that takes longer than a heartbeat is asked whether it is there.
        while matches!(frame.body, Some(Body::Ping(_))) {
            self.reply(frame.seq, Body::Pong(wire::Pong::default())).await;
            frame = self.next().await.expect("a Pong");
        }
        assert!(matches!(frame.body, Some(Body::Pong(_))) && frame.reply_to == seq, "{frame:?}");
    }
}

pub fn output(command: &wire::Command, offset: u64, data: &[u8]) -> wire::CommandOutput {
    wire::CommandOutput {
        uid: command.uid.clone(),
        stream: wire::Stream::Stdout.into(),
        offset,
        data: data.to_vec().into(),
        ..Default::default()
    }
}

pub fn result(command: &wire::Command, stdout: u64) -> wire::CommandResult {
    wire::CommandResult {
        uid: command.uid.clone(),
        id: command.id,
        outcome: wire::Outcome::Succeeded.into(),
        has_exit_code: true,
        streams: vec![
            wire::StreamEnd { stream: wire::Stream::Stdout.into(), length: stdout, ..Default::default() },
            wire::StreamEnd { stream: wire::Stream::Stderr.into(), ..Default::default() },
        ],
        ..Default::default()
    }
}

pub fn item(command: &wire::Command, phase: wire::CommandPhase) -> wire::InventoryItem {
    wire::InventoryItem {
        uid: command.uid.clone(),
        id: command.id,
        phase: phase.into(),
        generation: command.generation,
        ..Default::default()
    }
}
