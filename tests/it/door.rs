//! A plain HTTP/1.1 door before Central on a thread of its own, for tests: it can be closed and cut at any moment.

use bytes::Bytes;
use coordinator::body::{Body, Door, Downstream, Identity, Piece, Pull, Request};
use coordinator::central::Central;
use coordinator::error::Error;
use coordinator::message::{Method, RequestHead, Scheme};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::watch;

/// The open door. Dropping it closes it and every connection through it.
pub struct TestDoor {
    pub address: SocketAddr,
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
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async {
                tokio::select! {
                    () = accept(listener, central, cut) => {}
                    _ = stopped.wait_for(|stop| *stop) => {}
                }
            });
        });
        TestDoor { address, cuts, stop: Some(stop), thread: Some(thread) }
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

async fn accept(listener: std::net::TcpListener, central: Arc<Central>, cuts: watch::Sender<u64>) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let Ok((stream, client)) = listener.accept().await else { return };
        let (central, mut cut) = (central.clone(), cuts.subscribe());
        let service = hyper::service::service_fn(move |request| {
            let central = central.clone();
            async move { Ok::<_, Infallible>(answer(&central, client, request).await) }
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

async fn answer(central: &Arc<Central>, client: SocketAddr, request: http::Request<Incoming>) -> http::Response<Out> {
    let (parts, body) = request.into_parts();
    let mut head = RequestHead::new(Method::parse(parts.method.as_str().as_bytes()).unwrap(), parts.uri.to_string());
    parts.headers.iter().for_each(|(name, value)| head.fields.push(name.as_str().as_bytes(), value.as_bytes()));
    let (scheme, door, identity) = (Scheme::Http, Door::Central, Identity::Loopback);
    let from = Arc::new(Downstream { client, scheme, sni: None, door, identity });
    let body = Body::Pulled(Box::new(In(body)));
    let answer = central.call(Request { head: head.into(), body, interim: None, from }, &[]).await;
    let mut response = http::Response::builder().status(answer.head.status);
    for field in answer.head.fields.iter() {
        response = response.header(field.name, field.value);
    }
    response.body(Out(answer.body)).unwrap()
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

struct Out(Body);

impl hyper::body::Body for Out {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.0.poll_piece(cx).map(|piece| {
            piece.map(|piece| match piece {
                Ok(Piece::Data(octets)) => Ok(Frame::data(octets)),
                Ok(Piece::Trailers(_)) => Ok(Frame::data(Bytes::new())),
                Err(error) => Err(std::io::Error::other(error.detail().to_owned())),
            })
        })
    }
}
