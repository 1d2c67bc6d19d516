//! What Coordinators tell each other, origins, and clients if asked to, in fields (HOMES 2.5, DESIGN 10, Forwarding). Pure.
//!
//! Each is a dictionary of RFC 9651. Reading is strict and total: a peer is authenticated, not omnipotent. Parameters
//! that this release does not know are passed over, so that a newer peer can add some under the same version.

use crate::error::{Error, Result};
use crate::message::dictionary::{self, Bare, INTEGER_MAX, Member, Quoted, Shortest};
use crate::message::{Fields, Name, path};
use crate::record::Record;
use crate::route::key::KEY_LEN_MAX;
use std::fmt;

/// Octets of a name of an edge or key space.
const NAME_MAX: usize = 64;
/// Octets of a request id.
const ID_MAX: usize = 128;

/// `Coordinator-Fwd`: a request goes from one edge to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fwd {
    /// The edge that sends it.
    pub from: String,
    /// The edge that it is meant for.
    pub to: String,
    /// `space:key`, decoded; none for a route to an edge by name.
    pub key: Option<String>,
    /// The owner epoch that the sender believes in; 0 without a key.
    pub epoch: u32,
    /// The sender's feed cursor.
    pub seq: u64,
    /// The request's id.
    pub id: String,
}

/// `Coordinator-Moved`: with a 421, who owns the key instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// The owner.
    pub edge: String,
    /// Its epoch.
    pub epoch: u32,
    /// The cursor of who says so.
    pub seq: u64,
}

/// `Coordinator-Home`: with an answer, the epoch under which it was served, where the request named another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomeIs {
    /// The owner, who answers.
    pub edge: String,
    /// Its epoch.
    pub epoch: u32,
    /// Its cursor.
    pub seq: u64,
}

/// `Coordinator`: what the application is told with every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told<'a> {
    /// The edge that the client reached.
    pub edge: &'a str,
    /// `space:key` of a home route.
    pub key: Option<&'a str>,
    /// The owner of the key.
    pub home: Option<&'a str>,
    /// The owner epoch.
    pub epoch: Option<u32>,
    /// As what the origin is asked.
    pub role: Role,
}

/// `Coordinator` of an answer, where `tell_decision` is on: what the client is told of its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided<'a> {
    /// The edge that the client reached.
    pub edge: &'a str,
    /// `local`, `central`, `remote`, `reply`; empty if nothing was decided.
    pub decision: &'a str,
    /// The place that answered, or was to.
    pub to: Option<&'a str>,
    /// Why there; empty where there is only one way.
    pub reason: &'a str,
    /// `space:key` of a home route.
    pub key: Option<&'a str>,
    /// The owner epoch.
    pub epoch: Option<u32>,
}

/// As what an origin is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The owner of the key.
    Home,
    /// The authority.
    Central,
    /// A place that is near.
    Local,
    /// A write that was accepted before and is delivered now.
    Queued,
}

impl Role {
    /// As the field writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Home => "home",
            Role::Central => "central",
            Role::Local => "local",
            Role::Queued => "queued",
        }
    }
}

impl Fwd {
    /// Reads the field of a request: `None` without one. Errors: 400 if it stands twice or is malformed.
    pub fn read(fields: &Fields) -> Result<Option<Fwd>> {
        one(fields, Name::CoordinatorFwd, Fwd::parse)
    }

    /// Reads a value.
    pub fn parse(value: &[u8]) -> Option<Fwd> {
        let member = only_member(value, "v")?;
        if member.value.number() != Some(1) {
            return None;
        }
        let key = match member.parameter("key") {
            Some(value) => Some(decode_key(value.text()?)?),
            None => None,
        };
        Some(Fwd {
            from: text(&member, "from", NAME_MAX)?,
            to: text(&member, "to", NAME_MAX)?,
            key,
            epoch: epoch(&member)?,
            seq: member.parameter("seq")?.number()?,
            id: text(&member, "id", ID_MAX)?,
        })
    }
}

impl fmt::Display for Fwd {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "v=1; from={}; to={}", Shortest(&self.from), Shortest(&self.to))?;
        if let Some(key) = &self.key {
            write!(out, "; key={}", Quoted(&encode_key(key)))?;
        }
        write!(out, "; epoch={}; seq={}; id={}", self.epoch, self.seq.min(INTEGER_MAX), Shortest(&self.id))
    }
}

macro_rules! names_an_edge {
    ($kind:ident, $name:expr) => {
        impl $kind {
            /// Reads the field of an answer: `None` without one. Errors: if it stands twice or is malformed.
            pub fn read(fields: &Fields) -> Result<Option<$kind>> {
                one(fields, $name, $kind::parse)
            }

            /// Reads a value.
            pub fn parse(value: &[u8]) -> Option<$kind> {
                let member = only_member(value, "edge")?;
                let edge = member.value.text().filter(|name| is_name(name, NAME_MAX))?.to_owned();
                Some($kind { edge, epoch: epoch(&member)?, seq: member.parameter("seq")?.number()? })
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                let seq = self.seq.min(INTEGER_MAX);
                write!(out, "edge={}; epoch={}; seq={seq}", Shortest(&self.edge), self.epoch)
            }
        }
    };
}

names_an_edge!(Moved, Name::CoordinatorMoved);
names_an_edge!(HomeIs, Name::CoordinatorHome);

impl fmt::Display for Told<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "edge={}", Shortest(self.edge))?;
        if let Some(key) = self.key {
            write!(out, ", key={}", Quoted(&encode_key(key)))?;
        }
        if let Some(home) = self.home {
            write!(out, ", home={}", Shortest(home))?;
        }
        if let Some(epoch) = self.epoch {
            write!(out, ", epoch={epoch}")?;
        }
        write!(out, ", as={}", self.role.as_str())
    }
}

impl<'a> Decided<'a> {
    /// What the edge `own` has noted of a request.
    pub fn of(own: &'a str, record: &'a Record) -> Self {
        let to = match record.decision {
            "central" => Some("central"),
            "local" => Some(own),
            "remote" => record.home.as_deref(),
            _ => None,
        };
        let (decision, reason, key) = (record.decision, record.reason, record.key.as_deref());
        Decided { edge: own, decision, to, reason, key, epoch: record.epoch }
    }
}

impl fmt::Display for Decided<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "edge={}", Shortest(self.edge))?;
        if !self.decision.is_empty() {
            write!(out, ", decision={}", self.decision)?;
        }
        if let Some(to) = self.to {
            write!(out, ", to={}", Shortest(to))?;
        }
        if !self.reason.is_empty() {
            write!(out, ", reason={}", self.reason)?;
        }
        if let Some(key) = self.key {
            write!(out, ", key={}", Quoted(&encode_key(key)))?;
        }
        self.epoch.map_or(Ok(()), |epoch| write!(out, ", epoch={epoch}"))
    }
}

/// `space:key` as fields write it: every octet but unreserved ones, `:` and `@` percent-encoded.
pub fn encode_key(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    for octet in key.bytes() {
        if path::is_unreserved(octet) || matches!(octet, b':' | b'@') {
            out.push(char::from(octet));
        } else {
            path::escape(octet, &mut out);
        }
    }
    out
}

/// Reads `space:key`; `None` unless it is a space and a key (1 to 255 octets of UTF-8, no controls).
pub fn decode_key(text: &str) -> Option<String> {
    let whole = path::decode(text).filter(|_| text.is_ascii())?;
    let (space, key) = whole.split_once(':')?;
    let is_fine = is_name(space, NAME_MAX) && crate::route::key::is_key(key);
    is_fine.then_some(whole)
}

/// The longest field that is read: a full key, every octet of it escaped, and all else. Fits what is parsed at all.
const _: () = assert!(3 * KEY_LEN_MAX + 5 * NAME_MAX + ID_MAX + 256 < dictionary::LEN_MAX);

fn one<T>(fields: &Fields, name: Name, parse: impl Fn(&[u8]) -> Option<T>) -> Result<Option<T>> {
    let mut values = fields.all(name);
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => match parse(value) {
            Some(read) => Ok(Some(read)),
            None => Err(Error::bad_request(format!("{} is malformed", name.as_str()))),
        },
        _ => Err(Error::bad_request(format!("{} stands twice", name.as_str()))),
    }
}

fn only_member(value: &[u8], key: &str) -> Option<Member> {
    let mut members = dictionary::parse(value)?;
    let member = members.pop().filter(|member| member.key == key)?;
    members.is_empty().then_some(member)
}

fn text(member: &Member, key: &str, max: usize) -> Option<String> {
    member.parameter(key).and_then(Bare::text).filter(|text| is_name(text, max)).map(str::to_owned)
}

fn epoch(member: &Member) -> Option<u32> {
    member.parameter("epoch")?.number().and_then(|number| u32::try_from(number).ok())
}

fn is_name(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len()) && text.bytes().all(|octet| octet.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fwd() -> Fwd {
        Fwd {
            from: "fr".into(),
            to: "de".into(),
            key: Some("user:448".into()),
            epoch: 3,
            seq: 88213,
            id: "01J9".into(),
        }
    }

    #[test]
    fn written_as_the_contract_shows() {
        assert_eq!(fwd().to_string(), r#"v=1; from=fr; to=de; key="user:448"; epoch=3; seq=88213; id="01J9""#);
        assert_eq!(Moved { edge: "us".into(), epoch: 4, seq: 9 }.to_string(), "edge=us; epoch=4; seq=9");
        let told = Told { edge: "fr", key: Some("user:a/\u{e9}"), home: Some("fr"), epoch: Some(3), role: Role::Home };
        assert_eq!(told.to_string(), r#"edge=fr, key="user:a%2F%C3%A9", home=fr, epoch=3, as=home"#);
        let plain = Told { edge: "fr", key: None, home: None, epoch: None, role: Role::Local };
        assert_eq!(plain.to_string(), "edge=fr, as=local");
        let mut record = Record::start();
        assert_eq!(Decided::of("jp", &record).to_string(), "edge=jp");
        (record.decision, record.reason, record.home) = ("remote", "home_elsewhere", Some("fr".into()));
        (record.key, record.epoch) = (Some("user:a/b".into()), Some(1));
        let decided = r#"edge=jp, decision=remote, to=fr, reason=home_elsewhere, key="user:a%2Fb", epoch=1"#;
        assert_eq!(Decided::of("jp", &record).to_string(), decided);
        let members = dictionary::parse(told.to_string().as_bytes()).unwrap();
        assert_eq!(members[3].value, Bare::Integer(3));
    }

    #[test]
    fn read_strictly() {
        let whole = r#"v=1; from=fr; to=de; key="user:448"; epoch=3; seq=88213; id="01J9""#;
        assert_eq!(Fwd::parse(whole.as_bytes()), Some(fwd()));
        assert_eq!(Fwd::parse(format!("{whole}; later=1").as_bytes()), Some(fwd()));
        let keyless = whole.replace("; key=\"user:448\"", "");
        assert_eq!(Fwd::parse(keyless.as_bytes()).and_then(|fwd| fwd.key), None);
        for (from, to) in [
            ("v=1", "v=2"),
            ("v=1", "v=\"1\""),
            ("v=1; ", ""),
            ("from=fr; ", ""),
            ("from=fr", "from=1"),
            ("from=fr", "from=\"\""),
            ("from=fr", "from=\"f r\""),
            ("to=de; ", ""),
            ("epoch=3; ", ""),
            ("epoch=3", "epoch=-3"),
            ("epoch=3", "epoch=4294967296"),
            ("seq=88213", "seq=-1"),
            ("seq=88213", "seq=1000000000000000"),
            ("seq=88213; ", ""),
            ("; id=\"01J9\"", ""),
            ("user:448", "user"),
            ("user:448", "user:"),
            ("user:448", ":448"),
            ("user:448", "user:%"),
            ("user:448", "user:%0A"),
            ("user:448", "user:%FF"),
            ("user:448", "us er:448"),
            ("; id", ", id"),
            ("v=1", "v=1, v=1"),
        ] {
            let broken = whole.replacen(from, to, 1);
            assert_ne!(broken, whole);
            assert_eq!(Fwd::parse(broken.as_bytes()), None, "{broken}");
        }
        let long = whole.replace("448", &"4".repeat(256));
        assert_eq!(Fwd::parse(long.as_bytes()), None);
        for broken in ["", "edge=us", "edge=us; epoch=1", "edge=5; epoch=1; seq=1", "edge=us, epoch=1, seq=1"] {
            assert_eq!(Moved::parse(broken.as_bytes()), None, "{broken}");
            assert_eq!(HomeIs::parse(broken.as_bytes()), None, "{broken}");
        }
    }

    #[test]
    fn a_field_that_stands_twice_is_refused() {
        let value = fwd().to_string();
        let mut fields = Fields::new();
        assert_eq!(Fwd::read(&fields).unwrap(), None);
        fields.add(Name::CoordinatorFwd, &value);
        assert_eq!(Fwd::read(&fields).unwrap(), Some(fwd()));
        fields.add(Name::CoordinatorFwd, &value);
        assert_eq!(Fwd::read(&fields).unwrap_err().status(), 400);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            from in "[a-z][a-z0-9-]{0,20}",
            key in proptest::option::of("user:[^\\p{C}]{1,60}"),
            epoch: u32,
            seq in 0..=INTEGER_MAX,
            id in "[!-~]{1,40}",
        ) {
            let sent = Fwd { from, to: "de".into(), key, epoch, seq, id };
            prop_assert_eq!(Fwd::parse(sent.to_string().as_bytes()), Some(sent));
        }

        #[test]
        fn reading_never_panics(octets in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = (Fwd::parse(&octets), Moved::parse(&octets));
        }
    }
}
