//! What the operator and the service manager say to a process, kept from the moment that it is caught.

use std::future::poll_fn;
use std::task::Poll;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals that mean the same.
pub(super) struct Caught(Vec<Signal>);

impl Caught {
    /// From here on they do no more what the system does by itself; to be called in a runtime.
    ///
    /// Errors: the system does not let it, in words for people.
    pub fn of(kinds: &[SignalKind]) -> Result<Caught, String> {
        let caught = kinds.iter().map(|kind| signal(*kind)).collect::<Result<_, _>>();
        caught.map(Caught).map_err(|error| format!("a signal cannot be caught: {error}"))
    }

    /// The next one; several that come before they are asked for count once.
    pub async fn any(&mut self) {
        poll_fn(|cx| {
            // All of them, so that each wakes this task.
            let came = self.0.iter_mut().filter_map(|signal| signal.poll_recv(cx).is_ready().then_some(())).count();
            if came > 0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}
