//! The sample application that stands behind each place of the demo: a small shop.
//!
//! Owns its data in memory and its few URLs; refuses to know the Coordinator before it, except for the one header that
//! every application gets and that it shows in its answers. Invariant: every answer says which place gave it
//! (`served_by`), so that a reader sees where a request went; a user's id carries the edge that minted it and is never
//! minted twice. One task serves all connections: dropping it ends them all and leaves nothing behind.

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

mod socket;
mod ticker;

/// Every edge's copy holds the items 1 to this number from the start; the numbers above are made by POST.
const ITEMS: u64 = 999;

/// Central's shop sells the items 1 to this number: what the copies lack is fetched from there.
const ITEMS_OF_CENTRAL: u64 = 9_999;

/// The place that all data comes from.
pub const CENTRAL: &str = "central";

/// The largest content that is read: a wish list, not a library.
const CONTENT_MAX: usize = 64 * 1024;

/// Items and users that may be written: enough for a demo, and a bound for whoever leaves it running.
const ENTRIES_MAX: usize = 10_000;

/// A failed accept (out of descriptors) is tried again after this long.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What one place knows and is called.
struct Shop {
    name: String,
    /// Users minted here so far.
    minted: AtomicU64,
    data: Mutex<Data>,
}

#[derive(Default)]
struct Data {
    /// Items that were written: the content and how often.
    items: BTreeMap<u64, (Value, u64)>,
    /// Wish lists by user.
    wishes: BTreeMap<String, Value>,
}

/// Serves the shop of the place `name` on `listener`.
///
/// Cancel: ends only by being dropped, which closes the listener and all connections.
/// Source of the URLs: DESIGN 1 and 3.
pub async fn start(name: &str, listener: TcpListener) {
    let shop = Arc::new(Shop { name: name.to_owned(), minted: AtomicU64::new(0), data: Mutex::new(Data::default()) });
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => connections.push(converse(shop.clone(), stream)),
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(()) = connections.next(), if !connections.is_empty() => {}
        }
    }
}

/// One connection, to its end; after an upgrade, the echo of its messages.
async fn converse(shop: Arc<Shop>, stream: TcpStream) {
    // Answers are small and awaited: none should wait for a full packet.
    let _ = stream.set_nodelay(true);
    let upgrade: Arc<Mutex<Option<OnUpgrade>>> = Arc::default();
    let (slot, shop) = (upgrade.clone(), &shop);
    let service = service_fn(move |request| {
        let slot = slot.clone();
        async move { Ok::<_, Infallible>(shop.answer(request, &slot).await) }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
    if connection.await.is_err() {
        return;
    }
    let upgraded = lock(&upgrade).take();
    if let Some(upgraded) = upgraded
        && let Ok(upgraded) = upgraded.await
    {
        echo(TokioIo::new(upgraded)).await;
    }
}

/// Sends back each WebSocket message until the client closes.
async fn echo(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin) {
    while let Ok(Some(heard)) = socket::read(&mut stream).await {
        let Some(answer) = heard.answer() else { continue };
        if stream.write_all(&answer).await.is_err() || heard.is_close() {
            break;
        }
    }
    let _ = stream.shutdown().await;
}

impl Shop {
    async fn answer(&self, request: Request<Incoming>, upgrade: &Mutex<Option<OnUpgrade>>) -> Response<Body> {
        let (mut head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let read = matches!(head.method, Method::GET | Method::HEAD);
        match segments.as_slice() {
            ["healthz"] if read => text(StatusCode::OK, "ok\n"),
            ["v1", "chat"] if read => socket::accept(&mut head, upgrade),
            ["v1", "events"] if read => ticker::events(&self.name),
            ["v1", "users", _, "chat"] if read => socket::accept(&mut head, upgrade),
            ["v1", "items", file] => match (item_of(file, &self.name), &head.method) {
                (None, _) => self.missing(&head.headers),
                (Some(id), _) if read => self.show_item(id, &head.headers),
                (Some(id), &Method::POST) => self.write_item(id, &head.headers, body).await,
                _ => method_not_allowed("GET, HEAD, POST"),
            },
            ["v1", "users"] => match head.method {
                Method::POST => self.register(&head.headers, body).await,
                _ => method_not_allowed("POST"),
            },
            ["v1", "users", user, "wishlist.json"] => match head.method {
                _ if read => self.show_wishes(user, &head.headers),
                Method::PUT => self.write_wishes(user, &head.headers, body).await,
                _ => method_not_allowed("GET, HEAD, PUT"),
            },
            _ => self.missing(&head.headers),
        }
    }

    fn items(&self) -> u64 {
        if self.name == CENTRAL { ITEMS_OF_CENTRAL } else { ITEMS }
    }

    fn show_item(&self, id: u64, fields: &HeaderMap) -> Response<Body> {
        let (content, version) = match lock(&self.data).items.get(&id) {
            Some(written) => written.clone(),
            None if (1..=self.items()).contains(&id) => {
                (json!({ "name": format!("Item {id}"), "price": id % 90 + 10 }), 0)
            }
            None => return self.missing(fields),
        };
        self.tell(StatusCode::OK, fields, json!({ "id": id, "version": version, "item": content }))
    }

    async fn write_item(&self, id: u64, fields: &HeaderMap, body: Incoming) -> Response<Body> {
        let content = match content(body).await {
            Ok(content) => content,
            Err(refusal) => return refusal,
        };
        let version = {
            let mut data = lock(&self.data);
            if data.items.len() >= ENTRIES_MAX && !data.items.contains_key(&id) {
                return full();
            }
            let entry = data.items.entry(id).or_insert((Value::Null, 0));
            *entry = (content.clone(), entry.1 + 1);
            entry.1
        };
        self.tell(StatusCode::OK, fields, json!({ "id": id, "version": version, "item": content }))
    }

    /// A new user, whose id no other edge can mint because it begins with the name of this one.
    async fn register(&self, fields: &HeaderMap, body: Incoming) -> Response<Body> {
        let profile = match content(body).await {
            Ok(profile) => profile,
            Err(refusal) => return refusal,
        };
        let user = format!("{}-{}", self.name, self.minted.fetch_add(1, Ordering::Relaxed) + 1);
        let location = format!("/v1/users/{user}");
        let mut answer = self.tell(StatusCode::CREATED, fields, json!({ "user": user, "profile": profile }));
        if let Ok(location) = location.parse() {
            answer.headers_mut().insert(header::LOCATION, location);
        }
        answer
    }

    fn show_wishes(&self, user: &str, fields: &HeaderMap) -> Response<Body> {
        let wishes = lock(&self.data).wishes.get(user).cloned().unwrap_or_else(|| json!([]));
        self.tell(StatusCode::OK, fields, json!({ "user": user, "wishlist": wishes }))
    }

    async fn write_wishes(&self, user: &str, fields: &HeaderMap, body: Incoming) -> Response<Body> {
        let wishes = match content(body).await {
            Ok(wishes) => wishes,
            Err(refusal) => return refusal,
        };
        {
            let mut data = lock(&self.data);
            if data.wishes.len() >= ENTRIES_MAX && !data.wishes.contains_key(user) {
                return full();
            }
            data.wishes.insert(user.to_owned(), wishes.clone());
        }
        self.tell(StatusCode::OK, fields, json!({ "user": user, "wishlist": wishes }))
    }

    fn missing(&self, fields: &HeaderMap) -> Response<Body> {
        self.tell(StatusCode::NOT_FOUND, fields, json!({ "error": "no such thing" }))
    }

    /// An answer that says who gave it and what the Coordinator said of the request.
    fn tell(&self, status: StatusCode, fields: &HeaderMap, content: Value) -> Response<Body> {
        let mut all = Map::new();
        all.insert("served_by".to_owned(), json!(self.name));
        if let Some(said) = fields.get("coordinator").and_then(|value| value.to_str().ok()) {
            all.insert("coordinator".to_owned(), json!(said));
        }
        if let Value::Object(content) = content {
            all.extend(content);
        }
        let mut answer = response(status, "application/json", format!("{}\n", Value::Object(all)));
        if let Some(said) = fields.get("coordinator") {
            answer.headers_mut().insert("x-coordinator-said", said.clone());
        }
        answer
    }
}

/// The number in `847.json`, and in `847_jp.json` where that place is ours.
fn item_of(file: &str, place: &str) -> Option<u64> {
    let stem = file.strip_suffix(".json")?;
    let own = stem.strip_suffix(place).and_then(|stem| stem.strip_suffix('_'));
    let digits = own.unwrap_or(stem);
    // `parse` alone would take a leading `+`.
    digits.bytes().all(|octet| octet.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// The JSON of a request; text that is no JSON is taken as a string, so that any curl line works.
async fn content(body: Incoming) -> Result<Value, Response<Body>> {
    let octets = match Limited::new(body, CONTENT_MAX).collect().await {
        Ok(whole) => whole.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            return Err(text(StatusCode::PAYLOAD_TOO_LARGE, "too large\n"));
        }
        // Cut content was never sent by anybody: nothing of it may be kept.
        Err(_) => return Err(text(StatusCode::BAD_REQUEST, "incomplete\n")),
    };
    if octets.is_empty() {
        return Ok(Value::Null);
    }
    Ok(serde_json::from_slice(&octets).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&octets).into_owned())))
}

fn method_not_allowed(allow: &'static str) -> Response<Body> {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "not with this method\n");
    answer.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static(allow));
    answer
}

fn full() -> Response<Body> {
    text(StatusCode::INSUFFICIENT_STORAGE, "the demo's shop is full\n")
}

fn text(status: StatusCode, words: &'static str) -> Response<Body> {
    response(status, "text/plain; charset=utf-8", words)
}

fn response(status: StatusCode, kind: &'static str, content: impl Into<Bytes>) -> Response<Body> {
    let mut answer = Response::new(Full::new(content.into()).boxed_unsync());
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    answer
}

/// A lock whose data stays meaningful if a holder panicked: each change under it is one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
