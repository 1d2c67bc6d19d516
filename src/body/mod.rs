//! Messages in motion: a head with a body that is pulled by the task that writes it.
//!
//! Nothing is pushed through channels: back-pressure is not asking. Everything here lives on one worker thread and need
//! not be `Send`.

mod buffers;
pub mod encode;
pub mod io;
mod outbox;
pub mod replay;
mod tcp;
pub mod tls;
pub mod tunnel;

pub use buffers::Lent;

use crate::error::Result;
use crate::message::{Fields, Method, RequestHead, ResponseHead, Scheme};
use bytes::{Buf, Bytes};
use std::cell::OnceCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite};

/// One step of a body.
#[derive(Debug)]
pub enum Piece {
    /// Content; never empty.
    Data(Bytes),
    /// The trailer section; nothing follows it.
    Trailers(Fields),
}

/// Content that is still arriving. Dropping it before its end cuts the exchange that it belongs to.
pub trait Pull {
    /// The next piece; `None` only at the end that the framing states, never at a cut: that is an error.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece>>>;

    /// The octets that remain, where the framing says so.
    fn length(&self) -> Option<u64>;
}

/// The content of a message.
#[derive(Default)]
pub enum Body {
    /// No content.
    #[default]
    Empty,
    /// Whole content at hand.
    Full(Bytes),
    /// The same, in the buffer that it was read into.
    Lent(Lent),
    /// Content that is pulled from where it comes.
    Pulled(Box<dyn Pull>),
}

impl Body {
    /// The next piece; `None` at the complete end.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece>>> {
        match self {
            Body::Empty => Poll::Ready(None),
            Body::Full(octets) => Poll::Ready(only(std::mem::take(octets))),
            Body::Lent(_) => match std::mem::take(self) {
                Body::Lent(octets) => Poll::Ready(only(octets.into())),
                _ => Poll::Ready(None),
            },
            Body::Pulled(source) => source.poll_piece(cx),
        }
    }

    /// The next piece; `None` at the complete end.
    pub async fn next(&mut self) -> Option<Result<Piece>> {
        poll_fn(|cx| self.poll_piece(cx)).await
    }

    /// The exact number of octets that remain, where it is known.
    pub fn length(&self) -> Option<u64> {
        match self {
            Body::Empty => Some(0),
            Body::Pulled(source) => source.length(),
            whole => whole.at_hand().map(|octets| octets.len() as u64),
        }
    }

    /// All of the content, where there is some and it need not be waited for.
    pub fn at_hand(&self) -> Option<&[u8]> {
        match self {
            Body::Full(octets) => Some(octets),
            Body::Lent(octets) => Some(octets),
            Body::Empty | Body::Pulled(_) => None,
        }
    }

    /// Takes octets off the front of content that is at hand: at most as many as there are.
    pub fn advance(&mut self, octets: usize) {
        match self {
            Body::Full(whole) => whole.advance(octets),
            Body::Lent(whole) => whole.advance(octets),
            Body::Empty | Body::Pulled(_) => {}
        }
        if self.at_hand().is_some_and(<[u8]>::is_empty) {
            *self = Body::Empty;
        }
    }

    /// Whether there is provably no content and no trailer.
    pub fn is_empty(&self) -> bool {
        match self {
            Body::Empty => true,
            Body::Pulled(_) => false,
            whole => whole.at_hand().is_some_and(<[u8]>::is_empty),
        }
    }

    /// Collects the content, at most `max` octets; trailers are dropped. `None` if it is longer.
    pub async fn collect(mut self, max: usize) -> Result<Option<Bytes>> {
        match self {
            Body::Full(octets) => return Ok((octets.len() <= max).then_some(octets)),
            Body::Lent(octets) => return Ok((octets.len() <= max).then(|| octets.into())),
            Body::Empty | Body::Pulled(_) => {}
        }
        let mut whole = Vec::new();
        while let Some(piece) = self.next().await {
            if let Piece::Data(octets) = piece? {
                if whole.len() + octets.len() > max {
                    return Ok(None);
                }
                whole.extend_from_slice(&octets);
            }
        }
        Ok(Some(whole.into()))
    }
}

/// The one piece of whole content.
fn only(octets: Bytes) -> Option<Result<Piece>> {
    Some(octets).filter(|octets| !octets.is_empty()).map(|octets| Ok(Piece::Data(octets)))
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(octets: T) -> Self {
        Body::Full(octets.into())
    }
}

/// Both directions of an upgraded connection or an extended CONNECT stream.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

/// A connection or stream that can take interim responses (1xx).
pub trait Interim {
    /// Sends one at once, for the request of that number; without effect where the version or the client cannot take it,
    /// or another request is being answered.
    fn send(&self, request: u64, head: &ResponseHead);
}

/// Where interim responses to one request go while it is being answered.
#[derive(Clone)]
pub struct InterimLine {
    to: Rc<dyn Interim>,
    request: u64,
}

impl InterimLine {
    /// To `to`, which has given the request this number.
    pub fn new(to: Rc<dyn Interim>, request: u64) -> InterimLine {
        InterimLine { to, request }
    }

    /// Sends one at once; see [`Interim::send`].
    pub fn send(&self, head: &ResponseHead) {
        self.to.send(self.request, head);
    }
}

/// Which door a request came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Door {
    /// For the world.
    Public,
    /// For other edges and Central (mutual TLS).
    Peer,
    /// Central's own.
    Central,
}

/// Who is on the other side of a connection, as its certificate proves it (DESIGN 3, rights by certificate).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// No certificate was asked for: a public door.
    Anyone,
    /// A plain door on loopback: the sender names itself.
    Loopback,
    /// `spiffe://<deployment>/edge/<name>`.
    Edge(String),
    /// `spiffe://<deployment>/central…`.
    Central,
    /// `spiffe://<deployment>/operator/…`.
    Operator,
    /// `spiffe://<deployment>/app/…`.
    App,
}

/// The facts of a downstream connection, shared by its requests.
#[derive(Debug, Clone)]
pub struct Downstream {
    /// The address of the client, or of the proxy before us.
    pub client: SocketAddr,
    /// Whether the connection is TLS.
    pub scheme: Scheme,
    /// The server name that TLS asked for, lower-case.
    pub sni: Option<String>,
    /// The door.
    pub door: Door,
    /// Who the other side is.
    pub identity: Identity,
    /// What the lines of its requests in the access log have in common; made for the first of them.
    pub logged: OnceCell<Box<[u8]>>,
}

/// A request as the service gets it: head admitted, body not yet read.
pub struct Request {
    /// The head, after `message::request::admit`.
    pub head: Box<RequestHead>,
    /// The content.
    pub body: Body,
    /// Where 1xx go.
    pub interim: Option<InterimLine>,
    /// Where it came from.
    pub from: Rc<Downstream>,
}

impl Request {
    /// All of it; what stays is an empty request.
    pub fn take(&mut self) -> Request {
        let nothing = Box::new(RequestHead::new(Method::Get, ""));
        Request {
            head: std::mem::replace(&mut self.head, nothing),
            body: std::mem::take(&mut self.body),
            interim: self.interim.take(),
            from: self.from.clone(),
        }
    }
}

/// A response as the service gives it.
pub struct Response {
    /// The head; framing and connection fields are the writer's.
    pub head: ResponseHead,
    /// The content.
    pub body: Body,
    /// The upstream side of a tunnel: with 101, or 2xx to an extended CONNECT.
    pub tunnel: Option<Box<dyn Duplex>>,
}

impl Response {
    /// A response without content.
    pub fn new(status: u16) -> Self {
        Response { head: ResponseHead::new(status), body: Body::Empty, tunnel: None }
    }

    /// A response with whole content.
    pub fn with(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let mut response = Response::new(status);
        response.head.fields.add(crate::message::Name::ContentType, content_type);
        response.body = body.into().into();
        response
    }
}
