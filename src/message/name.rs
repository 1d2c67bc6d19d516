//! Names of fields: the well-known ones have a small id, which is found in one step.
//!
//! Owns the list of them and how a name is recognised: a perfect hash of its length and its ends, which the build works
//! out, says which name alone it could be, and one comparison, of three words, whether it is. Invariant: no name is taken for
//! another; the case of letters is all that is not looked at.

macro_rules! names {
    ($($variant:ident = $text:literal),+ $(,)?) => {
        /// A well-known field name; `Other` is any that is not listed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(missing_docs)]
        #[repr(u8)]
        pub enum Name { $($variant,)+ Other }

        impl Name {
            /// All but `Other`; `id as usize` is the place of each.
            pub const KNOWN: &[Name] = &[$(Name::$variant,)+];

            /// The name in lower case; empty for `Other`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Name::$variant => $text,)+ Name::Other => "" }
            }

            /// How a line with the name in lower case begins.
            pub(super) const fn start(self) -> &'static str {
                match self { $(Name::$variant => concat!($text, ": "),)+ Name::Other => ": " }
            }
        }
    };
}

names! {
    Host = "host",
    Connection = "connection",
    ContentLength = "content-length",
    TransferEncoding = "transfer-encoding",
    ContentType = "content-type",
    ContentEncoding = "content-encoding",
    Date = "date",
    Server = "server",
    Accept = "accept",
    AcceptEncoding = "accept-encoding",
    UserAgent = "user-agent",
    Authorization = "authorization",
    Cookie = "cookie",
    SetCookie = "set-cookie",
    CacheControl = "cache-control",
    Etag = "etag",
    Vary = "vary",
    Location = "location",
    Expect = "expect",
    Te = "te",
    Trailer = "trailer",
    Upgrade = "upgrade",
    KeepAlive = "keep-alive",
    ProxyConnection = "proxy-connection",
    ProxyAuthenticate = "proxy-authenticate",
    ProxyAuthorization = "proxy-authorization",
    Via = "via",
    Forwarded = "forwarded",
    XForwardedFor = "x-forwarded-for",
    XForwardedProto = "x-forwarded-proto",
    XForwardedHost = "x-forwarded-host",
    CdnLoop = "cdn-loop",
    MaxForwards = "max-forwards",
    Range = "range",
    RetryAfter = "retry-after",
    Allow = "allow",
    Age = "age",
    IdempotencyKey = "idempotency-key",
    ProxyStatus = "proxy-status",
    Traceparent = "traceparent",
    Http2Settings = "http2-settings",
    Coordinator = "coordinator",
    CoordinatorFwd = "coordinator-fwd",
    CoordinatorEdge = "coordinator-edge",
    CoordinatorHome = "coordinator-home",
    CoordinatorMoved = "coordinator-moved",
    CoordinatorUnknown = "coordinator-unknown",
    CoordinatorLeader = "coordinator-leader",
    WwwAuthenticate = "www-authenticate",
}

const COUNT: usize = Name::KNOWN.len();

const _: () = assert!(COUNT < u64::BITS as usize, "one bit for each name");

impl Name {
    /// Finds the id of a name in any case.
    pub fn of(text: &[u8]) -> Name {
        Name::at_start(text, text.len())
    }

    /// Finds the id of the name that the first `length` octets are. Cost: less where 24 octets follow the start.
    #[inline]
    pub(super) fn at_start(octets: &[u8], length: usize) -> Name {
        match octets.first_chunk() {
            Some(window) => Name::in_window(window, length),
            None => Name::at_end(octets, length),
        }
    }

    fn at_end(octets: &[u8], length: usize) -> Name {
        let mut window = Window::default();
        window[..octets.len()].copy_from_slice(octets);
        Name::in_window(&window, length)
    }

    #[inline]
    fn in_window(window: &Window, length: usize) -> Name {
        if !(LENGTH_MIN..=LENGTH_MAX).contains(&length) {
            return Name::Other;
        }
        let id = SLOTS[slot(key(window, length), MULTIPLIER)];
        if SPELLINGS[id as usize].begins(window, length) { id } else { Name::Other }
    }
}

/// A name and what follows it.
type Window = [u8; 24];

/// The shortest and the longest name above; others stop the build.
const LENGTH_MIN: usize = 2;
const LENGTH_MAX: usize = 19;

/// How a name is spelt, but for the case of its letters.
struct Spelling {
    length: usize,
    lower: [u64; 3],
    /// The bits that count: those of the name, but for those that tell capitals.
    exact: [u64; 3],
}

impl Spelling {
    #[inline]
    fn begins(&self, window: &Window, length: usize) -> bool {
        let (words, _) = window.as_chunks();
        let unlike = |at: usize| (u64::from_le_bytes(words[at]) ^ self.lower[at]) & self.exact[at];
        self.length == length && unlike(0) | unlike(1) | unlike(2) == 0
    }

    const fn of(name: &[u8]) -> Spelling {
        let (mut lower, mut exact, mut at) = ([0; 3], [0; 3], 0);
        while at < name.len() {
            let place = at % 8 * 8;
            lower[at / 8] |= (name[at] as u64) << place;
            let counts = if name[at].is_ascii_lowercase() { !CAPITAL } else { u8::MAX };
            exact[at / 8] |= (counts as u64) << place;
            at += 1;
        }
        Spelling { length: name.len(), lower, exact }
    }
}

/// The bit that tells a letter from its capital.
const CAPITAL: u8 = 0x20;

/// By id; the last row, of `Other`, is like no name.
static SPELLINGS: [Spelling; COUNT + 1] = {
    let (mut all, mut at) = ([const { Spelling::of(b"") }; COUNT + 1], 0);
    while at < COUNT {
        all[at] = Spelling::of(Name::KNOWN[at].as_str().as_bytes());
        at += 1;
    }
    all
};

/// What no two known names share, whatever the case: the length, the first two octets and the last two.
#[inline]
const fn key(window: &Window, length: usize) -> u64 {
    let ends = [window[0], window[1], window[length - 2], window[length - 1]];
    (u32::from_le_bytes(ends) | u32::from_le_bytes([CAPITAL; 4])) as u64 | (length as u64) << 32
}

const KEYS: [u64; COUNT] = {
    let (mut keys, mut at) = ([0; COUNT], 0);
    while at < COUNT {
        let (name, mut window) = (Name::KNOWN[at].as_str().as_bytes(), [0; 24]);
        assert!(LENGTH_MIN <= name.len() && name.len() <= LENGTH_MAX, "as long as the bounds say");
        window.split_at_mut(name.len()).0.copy_from_slice(name);
        keys[at] = key(&window, name.len());
        at += 1;
    }
    keys
};

const SLOT_BITS: u32 = 8;

/// The place of a key in the table.
#[inline]
const fn slot(key: u64, multiplier: u64) -> usize {
    (key.wrapping_mul(multiplier) >> (u64::BITS - SLOT_BITS)) as usize
}

/// The first multiplier that leads no two names to one slot; without end if two names share a key.
const MULTIPLIER: u64 = {
    let mut multiplier = 0x9e37_79b9_7f4a_7c15_u64;
    while slots(multiplier).is_none() {
        multiplier = multiplier.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(2);
    }
    multiplier
};

/// The name that each slot may be of.
static SLOTS: [Name; 1 << SLOT_BITS] = slots(MULTIPLIER).expect("this multiplier was taken because it leads to some");

const fn slots(multiplier: u64) -> Option<[Name; 1 << SLOT_BITS]> {
    let (mut slots, mut at) = ([Name::Other; 1 << SLOT_BITS], 0);
    while at < COUNT {
        let place = slot(KEYS[at], multiplier);
        if !matches!(slots[place], Name::Other) {
            return None;
        }
        slots[place] = Name::KNOWN[at];
        at += 1;
    }
    Some(slots)
}

/// A set of well-known names.
#[derive(Debug, Clone, Copy, Default)]
pub struct Names(u64);

impl Names {
    /// These.
    pub const fn of(ids: &[Name]) -> Names {
        let (mut all, mut at) = (0, 0);
        while at < ids.len() {
            all |= 1 << ids[at] as u32;
            at += 1;
        }
        Names(all)
    }

    /// These, and one more.
    pub const fn and(self, id: Name) -> Names {
        Names(self.0 | 1 << id as u32)
    }

    /// Whether a name is among them.
    pub const fn hold(self, id: Name) -> bool {
        self.0 & (1 << id as u32) != 0
    }

    /// Whether a name is in both.
    pub const fn meet(self, others: Names) -> bool {
        self.0 & others.0 != 0
    }

    pub(super) fn insert(&mut self, id: Name) {
        self.0 |= 1 << id as u32;
    }

    pub(super) fn remove(&mut self, id: Name) {
        self.0 &= !(1 << id as u32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_case() {
        for &id in Name::KNOWN {
            let lower = id.as_str();
            let behind = |text: &str| format!("{text}: value, which may be of any length");
            for text in [lower.to_owned(), lower.to_ascii_uppercase(), lower[..1].to_ascii_uppercase() + &lower[1..]] {
                assert_eq!(Name::of(text.as_bytes()), id, "{text}");
                assert_eq!(Name::at_start(behind(&text).as_bytes(), text.len()), id, "{text}");
            }
        }
    }

    #[test]
    fn no_name_is_taken_for_another() {
        for other in ["", "x", "hosts", "locatioN2", "coordinator-unknown-and-more", "te\0", "\0te", "te\0\0\0\0\0\0\0"]
        {
            assert_eq!(Name::of(other.as_bytes()), Name::Other, "{other}");
        }
        for &id in Name::KNOWN {
            for (at, octet) in (0..id.as_str().len()).flat_map(|at| (0..=255).map(move |octet| (at, octet))) {
                let mut text = id.as_str().as_bytes().to_vec();
                text[at] = octet;
                let known = Name::KNOWN.iter().find(|id| id.as_str().as_bytes().eq_ignore_ascii_case(&text));
                assert_eq!(Name::of(&text), known.copied().unwrap_or(Name::Other), "{}", text.escape_ascii());
            }
        }
    }
}
