//! A feed whose lines are all there: the whole path of an edge from a line of the stream to what is durable and visible,
//! without sockets and without Central's own work.

use coordinator::feed::link::run_from;
use coordinator::feed::source::{Begun, End, Image, Lines, Source};
use coordinator::feed::status::LinkStatus;
use coordinator::home::cursor::{Cursor, FeedId};
use coordinator::homes::{Applier, AskReceiver, Homes};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(600);

/// Lines of one history, given out as fast as they are taken.
pub struct Scripted {
    /// The history and its term.
    pub history: (FeedId, u64),
    /// The lines, in their order.
    pub lines: Vec<Vec<u8>>,
}

/// What is left of them.
pub struct Script(std::vec::IntoIter<Vec<u8>>);

impl Lines for Script {
    async fn next(&mut self) -> Result<Vec<u8>, End> {
        match self.0.next() {
            Some(line) => Ok(line),
            None => std::future::pending().await,
        }
    }
}

impl Source for Scripted {
    type Lines = Script;

    const NAME: &'static str = "scripted";

    async fn greet(&mut self, _: &Homes) -> Result<Option<Begun>, End> {
        Ok(None)
    }

    async fn snapshot(&mut self, _: u64) -> Result<Image, End> {
        Err(End::Fatal("the edge has a map".to_owned()))
    }

    async fn stream(&mut self, _: Cursor) -> Result<((FeedId, u64), Script), End> {
        Ok((self.history, Script(std::mem::take(&mut self.lines).into_iter())))
    }

    fn submit(&self, mut asks: AskReceiver) -> impl Future<Output = ()> + use<> {
        async move { while asks.recv().await.is_some() {} }
    }
}

/// Follows `source` until `last` is durable and visible; gives how long that took.
pub fn follow(source: Scripted, homes: &Arc<Homes>, applier: Applier, asks: AskReceiver, last: u64) -> Duration {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (stop, stopped) = watch::channel(false);
        let began = Instant::now();
        let reached = async {
            assert!(homes.seq_reached(last, LONG).await, "seq {last} never came: {:?}", homes.cursor());
            let took = began.elapsed();
            stop.send_replace(true);
            took
        };
        let (ended, took) =
            tokio::join!(run_from(source, applier, asks, Arc::new(LinkStatus::default()), stopped), reached);
        ended.expect("the feed is sound");
        took
    })
}
