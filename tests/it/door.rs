//! A plain HTTP/1.1 door before Central on a thread of its own, for tests: it can be closed and cut at any moment.

use bytes::Bytes;
use coordinator::body::{Body, Door, Downstream, Identity, Piece, Pull, Request};
use coordinator::central::Central;
use coordinator::error::Error;
use coordinator::message::{Method, RequestHead, Scheme};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use std::cell::OnceCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::sync::watch;

/// Changes a line of a stream on its way.
pub type Bend = fn(Bytes) -> Bytes;

/// What a door does on purpose, and what it has seen.
#[derive(Default)]
pub struct Mischief {
    /// The next snapshot stands still after so many octets, which have gone out then.
    pub cut_snapshot: Mutex<Option<usize>>,
    /// It stands still: time for a cut.
    pub is_still: Arc<AtomicBool>,
    /// Streams are plain, and each of their lines is changed so.
    pub bend: Mutex<Option<Bend>>,
    /// The `Range` of each request for a snapshot, and the status of its answer.
    pub snapshots: Mutex<Vec<(Option<String>, u16)>>,
}

/// The open door. Dropping it closes it and every connection through it.
pub struct TestDoor {
    pub address: SocketAddr,
    /// What it does to answers.
    pub mischief: Arc<Mischief>,
    /// Counts up at each cut.
    cuts: watch::Sender<u64>,
    stop: Option<watch::Sender<bool>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl TestDoor {
    /// Opens a door before Central, on any port or on that of a door before it.
    pub fn open(central: Arc<Central>, address: Option<SocketAddr>) -> TestDoor {
        let any = "127.0.0.1:0".parse().unwrap();
        let listener = std::net::TcpListener::bind(address.unwrap_or(any)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (cuts, stop) = (watch::Sender::new(0), watch::Sender::new(false));
        let (cut, mut stopped) = (cuts.clone(), stop.subscribe());
        let mischief: Arc<Mischief> = Arc::default();
        let door = mischief.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async {
                tokio::select! {
                    () = accept(listener, central, cut, door) => {}
                    _ = stopped.wait_for(|stop| *stop) => {}
                }
            });
        });
        TestDoor { address, mischief, cuts, stop: Some(stop), thread: Some(thread) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Cuts all connections; new ones are accepted.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl Drop for TestDoor {
    fn drop(&mut self) {
        self.stop.take().unwrap().send_replace(true);
        self.thread.take().unwrap().join().unwrap();
    }
}

async fn accept(
    listener: std::net::TcpListener,
    central: Arc<Central>,
    cuts: watch::Sender<u64>,
    mischief: Arc<Mischief>,
) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let Ok((stream, client)) = listener.accept().await else { return };
        let (central, mischief, mut cut) = (central.clone(), mischief.clone(), cuts.subscribe());
        let service = hyper::service::service_fn(move |request| {
            let (central, mischief) = (central.clone(), mischief.clone());
            async move { Ok::<_, Infallible>(answer(&central, client, request, &mischief).await) }
        });
        let io = hyper_util::rt::TokioIo::new(stream);
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(io, service);
        tokio::task::spawn_local(async move {
            cut.borrow_and_update();
            tokio::select! {
                _ = connection => {}
                _ = cut.changed() => {}
            }
        });
    }
}

async fn answer(
    central: &Arc<Central>,
    client: SocketAddr,
    mut request: http::Request<Incoming>,
    mischief: &Mischief,
) -> http::Response<Out> {
    let bend = *mischief.bend.lock().unwrap();
    let bend = bend.filter(|_| request.uri().path() == "/feed/v1/stream");
    if bend.is_some() {
        request.headers_mut().remove("accept-encoding");
    }
    let is_snapshot = request.uri().path() == "/feed/v1/snapshot";
    let range = request.headers().get("range").map(|range| range.to_str().unwrap().to_owned());
    let (parts, body) = request.into_parts();
    let mut head = RequestHead::new(Method::parse(parts.method.as_str().as_bytes()).unwrap(), parts.uri.to_string());
    parts.headers.iter().for_each(|(name, value)| head.fields.push(name.as_str().as_bytes(), value.as_bytes()));
    let (scheme, door, identity) = (Scheme::Http, Door::Central, Identity::Loopback);
    let from = Rc::new(Downstream { client, scheme, sni: None, door, identity, logged: OnceCell::new() });
    let body = Body::Pulled(Box::new(In(body)));
    let answer = central.call(Request { head: head.into(), body, interim: None, from }, &[]).await;
    let mut response = http::Response::builder().status(answer.head.status);
    for field in answer.head.fields.iter() {
        response = response.header(field.name, field.value);
    }
    let mut left = None;
    if is_snapshot {
        mischief.snapshots.lock().unwrap().push((range, answer.head.status));
        left = mischief.cut_snapshot.lock().unwrap().take();
    }
    let is_still = mischief.is_still.clone();
    response.body(Out { body: answer.body, left, is_still, bend }).unwrap()
}

struct In(Incoming);

impl Pull for In {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<coordinator::error::Result<Piece>>> {
        let mut frame = std::pin::pin!(self.0.frame());
        frame.as_mut().poll(cx).map(|frame| {
            frame.map(|frame| match frame {
                Ok(frame) => Ok(Piece::Data(frame.into_data().unwrap_or_default())),
                Err(error) => Err(Error::bad_request(error.to_string())),
            })
        })
    }

    fn length(&self) -> Option<u64> {
        None
    }
}

struct Out {
    body: Body,
    /// Octets until it stands still.
    left: Option<usize>,
    is_still: Arc<AtomicBool>,
    bend: Option<Bend>,
}

impl hyper::body::Body for Out {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let Out { body, left, is_still, bend } = &mut *self;
        if *left == Some(0) {
            is_still.store(true, Ordering::Relaxed);
            return Poll::Pending;
        }
        body.poll_piece(cx).map(|piece| {
            piece.map(|piece| match piece {
                Ok(Piece::Data(mut octets)) => {
                    if let Some(left) = left {
                        octets.truncate(*left);
                        *left -= octets.len();
                    }
                    Ok(Frame::data(bend.map_or(octets.clone(), |bend| bend(octets))))
                }
                Ok(Piece::Trailers(_)) => Ok(Frame::data(Bytes::new())),
                Err(error) => Err(std::io::Error::other(error.detail().to_owned())),
            })
        })
    }
}
