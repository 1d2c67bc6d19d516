//! Upgrades between versions (RFC 9110 section 7.8, RFC 6455 section 4, RFC 8441): a client and an upstream may each ask
//! for, or agree to, a switch of protocols in HTTP/1.1 or in HTTP/2, and neither must notice which one the other speaks.
//!
//! Inwards there is one form: a request with `protocol` set and the method that HTTP/1.1 uses, so an extended CONNECT is
//! a GET to routes, retries and origins alike. `upstream` writes it as the version of its connection wants. This file
//! makes that form and turns the answer back; it moves no octets and knows no connection. Invariant: what looks to the
//! client like an agreed switch has a tunnel behind it.
//!
//! | client | upstream | request | answer |
//! |---|---|---|---|
//! | 1.1 | 1.1 | the client's key | 101 and the origin's Accept, untouched |
//! | 1.1 | 2 | no key | 2xx becomes 101 with the Accept of the client's key |
//! | 2 | 1.1 | a key of our own | 101 whose Accept is checked becomes 200 without it |
//! | 2 | 2 | no key | 2xx, untouched |

use crate::base::backoff::random;
use crate::body::{Request, Response};
use crate::error::{Error, Kind, Result};
use crate::message::{Fields, Method, Name, RequestHead, Version};
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// What the server appends to the client's key (RFC 6455 section 1.3).
const MAGIC: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const KEY: &str = "sec-websocket-key";
const ACCEPT: &str = "sec-websocket-accept";
const VERSION: &str = "sec-websocket-version";

/// What a client asked to switch to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    protocol: String,
    /// Whether it asked by an extended CONNECT, to which only a tunnel may answer 2xx.
    connect: bool,
    /// The key of a WebSocket: the client's, or ours where HTTP/2 has none.
    key: Option<Vec<u8>>,
}

/// Whether a request asks for a switch; others need not be [`switched`].
pub(super) fn is_asked_for(head: &RequestHead) -> bool {
    head.upgrade().is_some()
}

/// Serves a request in the one form, and gives the answer the form that its client knows.
///
/// Errors: those of `serve`; 400 for a WebSocket handshake that has no key; `HttpUpgradeFailed` for a switch that is none.
pub(super) async fn switched(
    request: &mut Request,
    serve: impl AsyncFnOnce(&mut Request) -> Result<Response>,
) -> Result<Response> {
    let Some(asked) = unify(&mut request.head)? else { return serve(request).await };
    settle(&asked, serve(request).await?)
}

/// The answer to a WebSocket client's key (RFC 6455 section 4.2.2).
pub fn accept_of(key: &[u8]) -> String {
    // The handshake asks for SHA-1; it protects nothing here.
    base64(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, MAGIC].concat()).as_ref())
}

/// Brings a request that asks for a switch into the one form; `None` for one that does not.
fn unify(head: &mut RequestHead) -> Result<Option<Asked>> {
    let Some(protocol) = offered(head) else { return Ok(None) };
    let connect = head.method == Method::Connect;
    if connect {
        head.method = Method::Get;
    }
    let websocket = protocol.eq_ignore_ascii_case("websocket");
    let key = match (websocket, connect) {
        (false, _) => None,
        (true, false) => Some(only_key(&head.fields)?),
        (true, true) => Some(open(&mut head.fields)),
    };
    head.protocol = Some(protocol.clone());
    Ok(Some(Asked { protocol, connect, key }))
}

/// The one protocol of an offer that goes on: a tunnel of HTTP/2 can name only one.
fn offered(head: &RequestHead) -> Option<String> {
    let asked = head.upgrade()?;
    let all = || asked.split(',').map(str::trim).filter(|protocol| !protocol.is_empty());
    let websocket = all().find(|protocol| protocol.eq_ignore_ascii_case("websocket"));
    websocket.or_else(|| all().next()).map(str::to_owned)
}

fn only_key(fields: &Fields) -> Result<Vec<u8>> {
    let mut keys = fields.named(KEY);
    match (keys.next(), keys.next()) {
        (Some(key), None) if !key.is_empty() => Ok(key.to_vec()),
        _ => Err(Error::bad_request("a WebSocket handshake has one Sec-WebSocket-Key")),
    }
}

/// Adds what an extended CONNECT leaves out and an HTTP/1.1 origin needs; the fresh key.
fn open(fields: &mut Fields) -> Vec<u8> {
    fields.retain(|field| !field.name.eq_ignore_ascii_case(KEY.as_bytes()));
    let nonce = [random().to_be_bytes(), random().to_be_bytes()].concat();
    let key = base64(&nonce).into_bytes();
    fields.push(KEY.as_bytes(), &key);
    if fields.named(VERSION).next().is_none() {
        fields.push(VERSION.as_bytes(), b"13");
    }
    key
}

/// Turns the answer into one of the client's version.
fn settle(asked: &Asked, mut response: Response) -> Result<Response> {
    let head = &mut response.head;
    if response.tunnel.is_none() {
        // What follows a 2xx would be taken for the tunnel.
        return match asked.connect && (200..300).contains(&head.status) {
            true => Err(failed("the other side answered without switching protocols")),
            false => Ok(response),
        };
    }
    match (asked.connect, head.version == Version::Http2) {
        (false, false) => {}
        (true, true) => forget(&mut head.fields, ACCEPT),
        (false, true) => {
            forget(&mut head.fields, ACCEPT);
            head.status = 101;
            if let Some(key) = &asked.key {
                head.fields.push(ACCEPT.as_bytes(), accept_of(key).as_bytes());
            }
        }
        (true, false) => {
            if let Some(key) = &asked.key {
                check(&head.fields, key)?;
            }
            forget(&mut head.fields, ACCEPT);
            head.status = 200;
        }
    }
    if !asked.connect {
        head.fields.set(Name::Upgrade, &asked.protocol);
    }
    Ok(response)
}

/// The proof that the other side has read our handshake, and is no server that repeats what it is told.
fn check(fields: &Fields, key: &[u8]) -> Result<()> {
    let mut accepts = fields.named(ACCEPT);
    match (accepts.next(), accepts.next()) {
        (Some(accept), None) if accept == accept_of(key).as_bytes() => Ok(()),
        _ => Err(failed("the origin's Sec-WebSocket-Accept does not answer our key")),
    }
}

fn forget(fields: &mut Fields, name: &str) {
    fields.retain(|field| !field.name.eq_ignore_ascii_case(name.as_bytes()));
}

fn failed(detail: &'static str) -> Error {
    Error::new(Kind::HttpUpgradeFailed, detail)
}

/// Base64 with padding (RFC 4648 section 4).
fn base64(octets: &[u8]) -> String {
    const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in octets.chunks(3) {
        let bits = (0..3).fold(0, |sum, at| sum << 8 | u32::from(three.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let index = (bits >> (18 - 6 * at)) as usize & 63;
            text.push(if at <= three.len() { char::from(SIGNS[index]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::ResponseHead;

    /// The key of RFC 6455 section 1.3, and its answer.
    const SAMPLE: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const ANSWER: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

    fn h1(method: Method, upgrade: &str, keys: &[&str]) -> RequestHead {
        let mut head = RequestHead::new(method, "/chat");
        head.fields.add(Name::Connection, "keep-alive, Upgrade");
        head.fields.add(Name::Upgrade, upgrade);
        keys.iter().for_each(|key| head.fields.push(b"Sec-WebSocket-Key", key.as_bytes()));
        head
    }

    fn h2(protocol: &str) -> RequestHead {
        let mut head = RequestHead::new(Method::Connect, "/chat");
        head.version = Version::Http2;
        head.protocol = Some(protocol.to_owned());
        head
    }

    #[test]
    fn the_handshake_is_that_of_the_rfc() {
        assert_eq!(accept_of(SAMPLE.as_bytes()), ANSWER);
        assert_eq!([base64(b""), base64(b"M"), base64(b"Ma"), base64(b"Man")], ["", "TQ==", "TWE=", "TWFu"]);
    }

    #[test]
    fn requests_take_one_form() {
        for (method, upgrade, keys, expected) in [
            (Method::Get, "websocket", &[SAMPLE][..], Some(("websocket", true))),
            (Method::Get, "WebSocket", &[SAMPLE], Some(("WebSocket", true))),
            (Method::Get, "echo/1, websocket", &[SAMPLE], Some(("websocket", true))),
            (Method::Post, "tcp", &[], Some(("tcp", false))),
            (Method::Get, ", echo , tcp", &[], Some(("echo", false))),
            (Method::Get, "websocket", &[], None),
            (Method::Get, "websocket", &[""], None),
            (Method::Get, "websocket", &[SAMPLE, SAMPLE], None),
        ] {
            let mut head = h1(method.clone(), upgrade, keys);
            let asked = unify(&mut head);
            let shown = asked.as_ref().map(|asked| asked.as_ref().map(|asked| (&*asked.protocol, asked.key.is_some())));
            assert_eq!(shown.map_err(|error| error.status()), expected.map(Some).ok_or(400), "{upgrade} {keys:?}");
            if let Some((protocol, _)) = expected {
                assert_eq!((head.upgrade(), &head.method), (Some(protocol), &method));
            }
        }
        let mut plain = RequestHead::new(Method::Get, "/");
        plain.fields.add(Name::Upgrade, "websocket");
        assert_eq!(unify(&mut plain).unwrap(), None, "without Connection: upgrade it is no offer");
    }

    #[test]
    fn an_extended_connect_becomes_a_handshake_with_a_key_of_our_own() {
        let mut keys = Vec::new();
        for version in [None, Some("8")] {
            let mut head = h2("websocket");
            head.fields.push(b"sec-websocket-key", b"the client's");
            version.into_iter().for_each(|version| head.fields.push(b"sec-websocket-version", version.as_bytes()));
            let asked = unify(&mut head).unwrap().unwrap();
            assert_eq!((&head.method, asked.connect), (&Method::Get, true));
            let key = only_key(&head.fields).unwrap();
            assert_eq!((key.len(), asked.key.as_ref()), (24, Some(&key)));
            let told: Vec<_> = head.fields.named("sec-websocket-version").collect();
            assert_eq!(told, [version.unwrap_or("13").as_bytes()]);
            keys.push(key);
        }
        assert_ne!(keys[0], keys[1]);
        let mut head = h2("connect-udp");
        assert_eq!(unify(&mut head).unwrap().unwrap().key, None);
        assert!(head.fields.is_empty());
    }

    #[test]
    fn answers_speak_the_version_of_the_client() {
        let socket = |connect| Asked { protocol: "websocket".into(), connect, key: Some(SAMPLE.into()) };
        let other = |connect| Asked { protocol: "tcp".into(), connect, key: None };
        let (one, two) = (Version::Http11, Version::Http2);
        let agreed = format!("101 websocket {ANSWER}");
        let wrong = "x".to_owned();
        for (asked, version, status, accept, tunnel, expected) in [
            (socket(false), one, 101, ANSWER, true, &*agreed),
            (socket(false), one, 101, "x", true, "101 websocket x"),
            (socket(false), two, 200, "", true, &agreed),
            (socket(false), two, 204, "x", true, &agreed),
            (socket(true), one, 101, ANSWER, true, "200  "),
            (socket(true), one, 101, "x", true, "http_upgrade_failed"),
            (socket(true), one, 101, "", true, "http_upgrade_failed"),
            (socket(true), two, 200, "", true, "200  "),
            (socket(true), two, 201, "x", true, "201  "),
            (other(false), one, 101, "", true, "101 tcp "),
            (other(false), two, 200, "", true, "101 tcp "),
            (other(true), one, 101, "", true, "200  "),
            // Refusals are answers like any other, except that 2xx to CONNECT would promise a tunnel.
            (socket(false), one, 200, "", false, "200  "),
            (socket(false), one, 426, "", false, "426  "),
            (socket(false), two, 403, "", false, "403  "),
            (socket(true), one, 403, "", false, "403  "),
            (socket(true), one, 302, "", false, "302  "),
            (socket(true), one, 200, "", false, "http_upgrade_failed"),
            (other(true), two, 204, "", false, "http_upgrade_failed"),
        ] {
            let mut response = Response { head: ResponseHead::new(status), body: Default::default(), tunnel: None };
            response.head.version = version;
            if !accept.is_empty() {
                response.head.fields.push(b"Sec-WebSocket-Accept", accept.as_bytes());
            }
            if tunnel {
                response.tunnel = Some(Box::new(tokio::io::empty()) as Box<dyn crate::body::Duplex>);
            }
            let shown = match settle(&asked, response) {
                Ok(Response { head, .. }) => {
                    let accepts: Vec<_> = head.fields.named(ACCEPT).map(String::from_utf8_lossy).collect();
                    let upgrade = head.fields.text(Name::Upgrade).unwrap_or_default();
                    format!("{} {upgrade} {}", head.status, accepts.join("|"))
                }
                Err(error) => error.kind().name().to_owned(),
            };
            assert_eq!(shown, expected, "{asked:?} {version:?} {status} {accept}");
        }
        let mut doubled = Fields::new();
        doubled.push(ACCEPT.as_bytes(), ANSWER.as_bytes());
        doubled.push(ACCEPT.as_bytes(), wrong.as_bytes());
        assert!(check(&doubled, SAMPLE.as_bytes()).is_err());
    }
}
