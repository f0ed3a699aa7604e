//! A body that is made while it is read: nothing is prepared for a reader who does not ask.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use http_body::Frame;

/// Why a body was cut: its length must not look right to a peer that cannot be told in another way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body ends before its stream does")]
pub(super) struct Cut;

/// One step of a body.
pub(super) type Step = Option<Result<Frame<Bytes>, Cut>>;

/// Something that makes the parts of a body one by one.
pub(super) trait Source: Send + 'static {
    /// Makes the next part; `None` ends the body.
    fn next(&mut self) -> impl Future<Output = Step> + Send;
}

/// Makes a body of a source.
pub(super) fn pulled<S: Source>(source: S) -> Body {
    Body::new(Pulled { making: Some(Box::pin(advance(source))) })
}

async fn advance<S: Source>(mut source: S) -> (S, Step) {
    let step = source.next().await;
    (source, step)
}

/// A step in the making; it owns the source until it is made.
type Making<S> = Pin<Box<dyn Future<Output = (S, Step)> + Send>>;

struct Pulled<S> {
    making: Option<Making<S>>,
}

impl<S: Source> http_body::Body for Pulled<S> {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Step> {
        let Some(making) = &mut self.making else {
            return Poll::Ready(None);
        };
        let (source, step) = ready!(making.as_mut().poll(context));
        // Behind trailers and behind a cut nothing may follow.
        let goes_on = matches!(&step, Some(Ok(frame)) if frame.is_data());
        self.making = goes_on.then(|| -> Making<S> { Box::pin(advance(source)) });
        Poll::Ready(step)
    }

    fn is_end_stream(&self) -> bool {
        self.making.is_none()
    }
}
