//! Server-sent events: one at once and one each second, so that a reader sees that nothing buffers them.

use super::{Body, response};
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Frame;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Between two events.
const EVERY: Duration = Duration::from_secs(1);

/// The stream of events of the place `name`: it ends when its reader goes.
pub(super) fn events(name: &str) -> Response<Body> {
    let mut every = interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut answer = response(StatusCode::OK, "text/event-stream", Bytes::new());
    *answer.body_mut() = Ticker { name: name.to_owned(), every, count: 0 }.boxed_unsync();
    answer
}

struct Ticker {
    name: String,
    every: Interval,
    count: u64,
}

impl hyper::body::Body for Ticker {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        ready!(self.every.poll_tick(cx));
        self.count += 1;
        let event = format!("id: {0}\ndata: {{\"served_by\":\"{1}\",\"tick\":{0}}}\n\n", self.count, self.name);
        Poll::Ready(Some(Ok(Frame::data(event.into()))))
    }
}
