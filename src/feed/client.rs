//! The control side's HTTP client: one connection to Central at a time, HTTP/1.1 or HTTP/2 as ALPN or the URL says.
//!
//! Not for the data path: hyper is enough for a few requests a second, and everything here is `Send`.

use crate::base::fault::Fault;
use crate::config::plan::{Url, UrlScheme};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// How long connecting may take, TLS and HTTP included.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// How long a response head may take; Central answers 503 by itself before.
const HEAD_MAX: Duration = Duration::from_secs(8);

/// A connection. Dropping it cuts answers that are still arriving.
pub struct Line {
    sender: Sender,
    base: String,
    authority: String,
    secure: bool,
    driver: JoinHandle<()>,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Call {
    /// The method.
    pub method: http::Method,
    /// Path and query, appended to the URL's base.
    pub target: String,
    /// Fields beside Host.
    pub fields: Vec<(&'static str, String)>,
    /// The content.
    pub content: Bytes,
    /// How long the head of the answer may take, where that is longer than usual.
    pub patience: Option<Duration>,
}

impl Line {
    /// Connects; `tls` is what `https` URLs are called with. Errors: why not, for people.
    pub async fn connect(url: &Url, tls: Option<&Arc<rustls::ClientConfig>>) -> Result<Line, String> {
        Line::connect_over(url, tls, None).await
    }

    /// The same over a way with faults on purpose: a cut breaks the connection at once.
    pub async fn connect_over(
        url: &Url,
        tls: Option<&Arc<rustls::ClientConfig>>,
        fault: Option<&Arc<Fault>>,
    ) -> Result<Line, String> {
        match timeout(CONNECT_MAX, Line::connect_at_leisure(url, tls, fault)).await {
            Ok(Ok(line)) => Ok(line),
            Ok(Err(why)) => Err(format!("{url} cannot be reached: {why}")),
            Err(_) => Err(format!("{url} cannot be reached within {} s", CONNECT_MAX.as_secs())),
        }
    }

    async fn connect_at_leisure(
        url: &Url,
        tls: Option<&Arc<rustls::ClientConfig>>,
        fault: Option<&Arc<Fault>>,
    ) -> Result<Line, String> {
        let text = |error: std::io::Error| error.to_string();
        if url.scheme == UrlScheme::Unix {
            let stream = UnixStream::connect(&url.host).await.map_err(text)?;
            return Line::speak(url, stream, false).await;
        }
        let stream = TcpStream::connect((url.host.as_str(), url.port)).await.map_err(text)?;
        stream.set_nodelay(true).map_err(text)?;
        let stream = Way::over(stream, fault.cloned());
        if url.scheme != UrlScheme::Https {
            return Line::speak(url, stream, url.scheme == UrlScheme::H2c).await;
        }
        let tls = tls.ok_or("an https URL needs the certificates of `[peer]`")?;
        let name = rustls::pki_types::ServerName::try_from(url.host.clone()).map_err(|error| error.to_string())?;
        let handshake = TlsConnector::from(tls.clone()).connect(name, stream).await;
        let stream = handshake.map_err(|error| with_remedy(&error, &error))?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Line::speak(url, stream, http2).await
    }

    async fn speak<S>(url: &Url, stream: S, http2: bool) -> Result<Line, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let text = |error: hyper::Error| error.to_string();
        let io = TokioIo::new(stream);
        let (sender, driver) = if http2 {
            let (sender, driver) = http2::handshake(TokioExecutor::new(), io).await.map_err(text)?;
            (Sender::Http2(sender), drive(driver))
        } else {
            let (sender, driver) = http1::handshake(io).await.map_err(text)?;
            (Sender::Http1(sender), drive(driver))
        };
        let (base, authority) = (url.base.clone(), url.authority());
        Ok(Line { sender, base, authority, secure: url.scheme == UrlScheme::Https, driver })
    }

    /// Sends a request and waits for the head of its answer. Errors: the connection is of no more use.
    pub async fn send(&mut self, call: Call) -> Result<http::Response<Incoming>, String> {
        let patience = call.patience.unwrap_or(HEAD_MAX);
        let request = self.request(call)?;
        let answer = async {
            match &mut self.sender {
                Sender::Http1(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
                Sender::Http2(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
            }
        };
        match timeout(patience, answer).await {
            Ok(answer) => answer.map_err(|error| self.broken(&error)),
            Err(_) => Err(format!("{} did not answer within {} s", self.authority, patience.as_secs())),
        }
    }

    /// What broke the connection, with its cause, and how to mend it where that can be told.
    fn broken(&self, error: &hyper::Error) -> String {
        let at = &self.authority;
        if error.is_parse() && !self.secure {
            return format!("{at} does not answer in plain HTTP ({error}): is it a TLS door? Then write https://");
        }
        match std::error::Error::source(error) {
            Some(cause) => format!("{at} ended the connection: {}", with_remedy(&format!("{error}: {cause}"), error)),
            None => format!("{at} ended the connection: {error}"),
        }
    }

    fn request(&self, call: Call) -> Result<http::Request<Full<Bytes>>, String> {
        let target = format!("{}{}", self.base, call.target);
        let mut request = http::Request::builder().method(call.method);
        request = match (&self.sender, self.secure) {
            (Sender::Http1(_), _) => request.uri(target).header("host", &self.authority),
            (Sender::Http2(_), true) => request.uri(format!("https://{}{target}", self.authority)),
            (Sender::Http2(_), false) => request.uri(format!("http://{}{target}", self.authority)),
        };
        for (name, value) in call.fields {
            request = request.header(name, value);
        }
        request.body(Full::new(call.content)).map_err(|error| error.to_string())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// What failed, and how to mend it where TLS says enough to know.
fn with_remedy(shown: &dyn std::fmt::Display, error: &(dyn std::error::Error + 'static)) -> String {
    match crate::tls::client::remedy(error) {
        "" => shown.to_string(),
        help => format!("{shown}: {help}"),
    }
}

/// A TCP connection that breaks when its way is cut on purpose.
struct Way {
    stream: TcpStream,
    cut: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Way {
    fn over(stream: TcpStream, fault: Option<Arc<Fault>>) -> Way {
        let cut = async move {
            match fault {
                Some(fault) => fault.until_cut().await,
                None => std::future::pending().await,
            }
        };
        Way { stream, cut: Box::pin(cut) }
    }

    /// Errors: it is cut.
    fn broken(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(()) => {
                self.cut = Box::pin(std::future::ready(()));
                Err(io::Error::new(io::ErrorKind::ConnectionReset, "the link is cut on purpose"))
            }
        }
    }
}

impl AsyncRead for Way {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.broken(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Way {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.broken(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Lets a connection work; its end shows at the sender.
fn drive(connection: impl Future<Output = Result<(), hyper::Error>> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(async move {
        let _ = connection.await;
    })
}

/// Collects a small answer, at most `max` octets. Errors: longer, or cut.
pub async fn content(body: Incoming, max: usize) -> Result<Bytes, String> {
    match timeout(HEAD_MAX, Limited::new(body, max).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the answer did not end in time".to_owned()),
    }
}
