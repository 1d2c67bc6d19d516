//! Transcripts: what a client sends, what the origin gets and answers, and what the client gets, in files.
//!
//! `tests/it/wire/README.md` describes the format. One runner plays them all, each case against an edge of its own, so
//! that no case can be saved or spoilt by a connection that another one left behind.

use crate::harness::client::{Answer, Client, show};
use crate::harness::message::{End, Fields, Stop, values};
use crate::harness::origin::{self, Origin};
use crate::harness::{edge, ws};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

/// How many cases are played at a time: most of a case's time is waiting for processes and timers.
const AT_A_TIME: usize = 4;

/// One transcript.
#[derive(Debug, Clone, Default)]
struct Case {
    /// `file.wire:12 name`.
    name: String,
    config: String,
    /// What the client does and expects, and what the origin expects, in the order of the file.
    story: Vec<(usize, Line)>,
    /// What the origin answers, request by request.
    answers: Vec<Vec<OriginStep>>,
}

/// Octets that a failure shows as text.
#[derive(Clone, PartialEq)]
struct Octets(Vec<u8>);

impl std::fmt::Debug for Octets {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&show(&self.0))
    }
}

#[derive(Debug, Clone)]
enum Line {
    Send(Vec<u8>),
    HalfClose,
    Reconnect,
    Wait(Duration),
    /// Waits until the origin has said so many answers to their end.
    Said(usize),
    /// Reads the next answer and checks it.
    Expect(Vec<Check>),
    /// Checks the next request that reached the origin.
    Origin(Vec<OriginCheck>),
    /// From here on, requests may reach the origin as long as none of them is complete.
    NothingWhole,
    /// Here the file says what the origin answers; the script was told before the story began.
    Answered,
}

#[derive(Debug, Clone, PartialEq)]
enum Check {
    Status(Vec<u16>),
    /// A field's one value.
    Field(String, String),
    FieldHas(String, String),
    NoField(String),
    Error(String),
    Body(Octets),
    BodyHas(Octets),
    Length(usize),
    Trailer(String, String),
    Interim(Vec<u16>),
    Whole,
    Cut,
    /// The answer is to HEAD.
    ToHead,
    /// The connection ends without another octet.
    Closed,
    /// No answer at all: the connection ends first.
    Nothing,
    /// No answer, or one with this status.
    ClosedOrStatus(u16),
    /// Cut, or replaced by an answer of our own.
    NeverWhole,
    /// Not among all octets that ever came.
    Lacks(Octets),
    /// These octets come, and no answer.
    Octets(Octets),
}

#[derive(Debug, Clone, PartialEq)]
enum OriginCheck {
    Start(String),
    Field(String, String),
    NoField(String),
    Body(Octets),
    Trailer(String, String),
    Has(Octets),
    Lacks(Octets),
    Whole,
    Cut,
}

#[derive(Debug, Clone)]
enum OriginStep {
    Send(Vec<u8>),
    Wait(Duration),
    Early,
    Close,
    Reset,
    Stall,
    Tunnel,
    WebSocket,
    Echo,
}

#[test]
fn transcripts_hold() {
    let cases = all();
    assert!(cases.len() >= if std::env::var("WIRE").is_ok() { 1 } else { 40 }, "only {} cases", cases.len());
    let (queue, failures) = (Mutex::new(VecDeque::from(cases)), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("nobody panics under this lock").pop_front();
                    let Some(case) = next else { return };
                    if let Err(failure) = against_an_edge(&case) {
                        failures.lock().expect("nobody panics under this lock").push(failure);
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().expect("nobody panicked under this lock");
    failures.sort();
    assert!(failures.is_empty(), "{} transcripts do not hold:\n\n{}", failures.len(), failures.join("\n\n"));
}

/// Every case of every file.
fn all() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/wire");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be listed").path())
        .collect();
    files.sort();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "wire"));
    let only = std::env::var("WIRE").unwrap_or_default();
    let read = |path: &std::path::PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a plain name").to_owned();
        let text = std::fs::read_to_string(path).expect("a transcript is text");
        parse(&name, &text).unwrap_or_else(|error| panic!("{error}"))
    };
    files.iter().flat_map(read).filter(|case| only.is_empty() || case.name.contains(&only)).collect()
}

fn against_an_edge(case: &Case) -> Result<(), String> {
    let told = std::panic::catch_unwind(|| {
        let origin = Origin::start();
        let config = case.config.replace("${origin}", &origin.address.to_string());
        let edge = edge::start(&config);
        play(case, edge.address(), &origin)
    });
    told.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("{}: {}", case.name, text.unwrap_or_default()))
    })
}

/// Plays one case: the client against `address`, and `origin` behind it. Errors: which line did not hold, and what came.
fn play(case: &Case, address: SocketAddr, origin: &Origin) -> Result<(), String> {
    for answer in &case.answers {
        origin.next(script(answer));
    }
    let mut client = Client::plain(address);
    let (mut requests, mut nothing_whole) = (0, false);
    for (number, line) in &case.story {
        match line {
            Line::Send(octets) => drop(client.send(octets)),
            Line::HalfClose => drop(client.half_close()),
            Line::Reconnect => client = Client::plain(address),
            Line::Wait(time) => std::thread::sleep(*time),
            Line::Said(answers) => origin.has_said(*answers),
            Line::NothingWhole => nothing_whole = true,
            Line::Answered => {}
            Line::Expect(checks) => expect(&mut client, checks)
                .map_err(|why| format!("{} (line {number}): {why}\n  came: {}", case.name, show(client.record())))?,
            Line::Origin(checks) => {
                requests += 1;
                let seen = origin.request(requests);
                if let Some(check) = checks.iter().find(|check| !check.holds(&seen)) {
                    let came = show(&seen.raw);
                    return Err(format!("{} (line {number}): the origin expected {check:?}\n  got: {came}", case.name));
                }
            }
        }
    }
    let told = if nothing_whole { none_whole(origin, requests) } else { no_more(origin, requests) };
    told.map_err(|why| format!("{}: {why}", case.name))
}

/// Whether exactly `requests` reached the origin.
fn no_more(origin: &Origin, requests: usize) -> Result<(), String> {
    let (seen, garbled) = (origin.seen(), origin.garbled());
    if seen.len() == requests && garbled.is_empty() {
        return Ok(());
    }
    let mut why = format!("{requests} requests were to reach the origin, and {} did:", seen.len());
    for seen in seen {
        let _ = write!(why, "\n  {}", show(&seen.raw));
    }
    for rest in garbled {
        let _ = write!(why, "\n  and octets that are no request: {rest}");
    }
    Err(why)
}

/// Whether what reached the origin after the first `requests` is incomplete.
fn none_whole(origin: &Origin, requests: usize) -> Result<(), String> {
    for number in requests + 1..=origin.seen().len() {
        let seen = origin.request(number);
        if seen.is_complete() {
            return Err(format!("the origin took this for a complete request: {}", show(&seen.raw)));
        }
    }
    Ok(())
}

fn script(steps: &[OriginStep]) -> origin::Answer {
    steps.iter().fold(origin::Answer::new(), |answer, step| match step {
        OriginStep::Send(octets) => answer.send(octets),
        OriginStep::Wait(time) => answer.wait(*time),
        OriginStep::Early => answer.early(),
        OriginStep::Close => answer.close(),
        OriginStep::Reset => answer.reset(),
        OriginStep::Stall => answer.stall(),
        OriginStep::Tunnel => answer.tunnel(),
        OriginStep::WebSocket => origin::Answer::websocket(),
        OriginStep::Echo => origin::Answer::echo(),
    })
}

fn expect(client: &mut Client, checks: &[Check]) -> Result<(), String> {
    let told = match checks {
        [Check::Nothing, ..] => {
            return ended(client).map_err(|rest| format!("no answer was expected, and came {rest}"));
        }
        [Check::Closed, ..] => Ok(()),
        [Check::Octets(octets), ..] => came_next(client, &octets.0),
        [Check::ClosedOrStatus(status), ..] => return ended_or(client, *status),
        [Check::NeverWhole, ..] => return never_whole(client),
        _ => answered(client, checks),
    };
    told?;
    if checks.contains(&Check::Closed) {
        ended(client).map_err(|rest| format!("the connection was to end, but first came {rest}"))?;
    }
    let lacked = |check: &&Check| matches!(check, Check::Lacks(octets) if contains(client.record(), &octets.0));
    checks.iter().find(lacked).map_or(Ok(()), |check| Err(format!("the client expected {check:?}")))
}

fn answered(client: &mut Client, checks: &[Check]) -> Result<(), String> {
    let method = if checks.contains(&Check::ToHead) { "HEAD" } else { "GET" };
    let answer = client.try_answer(method).map_err(|stop| format!("no answer: {stop:?}"))?;
    let failed = checks.iter().find(|check| !check.holds(&answer));
    failed.map_or(Ok(()), |check| Err(format!("the client expected {check:?}")))
}

fn came_next(client: &mut Client, octets: &[u8]) -> Result<(), String> {
    let came = client.octets(octets.len());
    if came == octets { Ok(()) } else { Err(format!("{} was to come, not {}", show(octets), show(&came))) }
}

fn ended(client: &mut Client) -> Result<(), String> {
    let rest = client.closed();
    if rest.is_empty() { Ok(()) } else { Err(show(&rest)) }
}

fn ended_or(client: &mut Client, status: u16) -> Result<(), String> {
    match client.try_answer("GET") {
        Ok(answer) if answer.status != status => Err(format!("no answer or {status} was expected")),
        Err(Stop::Silent) => Err("the connection stays open and silent".to_owned()),
        _ => Ok(()),
    }
}

fn never_whole(client: &mut Client) -> Result<(), String> {
    match client.try_answer("GET") {
        Ok(answer) if answer.end == End::Clean && answer.status != 502 => {
            Err("it was delivered as complete".to_owned())
        }
        Ok(Answer { end: End::Cut(how), .. }) if how.contains("Silent") => Err("it was left hanging".to_owned()),
        Err(Stop::Silent) => Err("the connection stays open and silent".to_owned()),
        _ => Ok(()),
    }
}

impl Check {
    fn holds(&self, answer: &Answer) -> bool {
        match self {
            Check::Status(any) => any.contains(&answer.status),
            Check::Field(name, value) => values(&answer.fields, name) == [value],
            Check::FieldHas(name, text) => values(&answer.fields, name).join(", ").contains(text),
            Check::NoField(name) => values(&answer.fields, name).is_empty(),
            Check::Error(token) => answer.error().as_ref() == Some(token),
            Check::Body(octets) => answer.body == octets.0,
            Check::BodyHas(octets) => contains(&answer.body, &octets.0),
            Check::Length(count) => answer.body.len() == *count,
            Check::Trailer(name, value) => values(&answer.trailers, name) == [value],
            Check::Interim(all) => answer.interim.iter().map(|(status, _)| *status).collect::<Vec<_>>() == *all,
            Check::Whole => answer.end == End::Clean,
            Check::Cut => answer.end != End::Clean,
            // Of the connection, not of one answer: `expect` sees to them.
            Check::ToHead
            | Check::Closed
            | Check::Nothing
            | Check::ClosedOrStatus(_)
            | Check::NeverWhole
            | Check::Lacks(_)
            | Check::Octets(_) => true,
        }
    }
}

impl OriginCheck {
    fn holds(&self, seen: &origin::Seen) -> bool {
        let one = |fields: &Fields, name: &str, value: &str| values(fields, name) == [value];
        match self {
            OriginCheck::Start(line) => format!("{} {} {}", seen.method, seen.target, seen.version) == *line,
            OriginCheck::Field(name, value) => one(&seen.fields, name, value),
            OriginCheck::NoField(name) => values(&seen.fields, name).is_empty(),
            OriginCheck::Body(octets) => seen.body == octets.0,
            OriginCheck::Trailer(name, value) => one(&seen.trailers, name, value),
            OriginCheck::Has(octets) => contains(&seen.raw, &octets.0),
            OriginCheck::Lacks(octets) => !contains(&seen.raw, &octets.0),
            OriginCheck::Whole => seen.is_complete(),
            OriginCheck::Cut => !seen.is_complete(),
        }
    }
}

fn contains(hay: &[u8], needle: &[u8]) -> bool {
    needle.is_empty() || hay.windows(needle.len()).any(|window| window == needle)
}

/// Reads a file of cases. Errors: `file:line: what is wrong`.
fn parse(file: &str, text: &str) -> Result<Vec<Case>, String> {
    let mut parser = Parser { cases: Vec::new(), config: edge::PLAIN.to_owned(), in_config: false, before: None };
    for (index, line) in text.lines().enumerate() {
        parser.line(file, index + 1, line).map_err(|error| format!("{file}:{}: {error}", index + 1))?;
    }
    Ok(parser.cases)
}

struct Parser {
    cases: Vec<Case>,
    /// The configuration of the cases that follow.
    config: String,
    in_config: bool,
    /// What kind the line before was: lines of a kind in a row belong together.
    before: Option<&'static str>,
}

impl Parser {
    fn line(&mut self, file: &str, number: usize, line: &str) -> Result<(), String> {
        if self.in_config && (line.starts_with("    ") || line.trim().is_empty()) {
            self.config.push_str(line.strip_prefix("    ").unwrap_or(""));
            self.config.push('\n');
            return Ok(());
        }
        self.in_config = false;
        if line.trim().is_empty() || line.starts_with('#') {
            self.before = None;
            return Ok(());
        }
        if line.trim_end() == "config:" {
            self.in_config = true;
            self.config.clear();
            return Ok(());
        }
        if let Some(name) = line.strip_prefix("case:") {
            let name = format!("{file}:{number} {}", name.trim());
            self.cases.push(Case { name, config: self.config.clone(), ..Case::default() });
            self.before = None;
            return Ok(());
        }
        let case = self.cases.last_mut().ok_or("a line before the first `case:`")?;
        let (kind, rest) = split(line)?;
        case.add(number, kind, rest, self.before == Some(kind))?;
        self.before = Some(kind);
        Ok(())
    }
}

/// The kind of a line and what follows it, one space taken away.
fn split(line: &str) -> Result<(&'static str, &str), String> {
    const KINDS: [&str; 6] = ["client>", "client<", "client!", "origin>", "origin<", "origin!"];
    let kind = KINDS.into_iter().find(|kind| line.starts_with(kind)).ok_or_else(|| format!("not a line: {line:?}"))?;
    let rest = &line[kind.len()..];
    Ok((kind, rest.strip_prefix(' ').unwrap_or(rest)))
}

impl Case {
    fn add(&mut self, number: usize, kind: &str, rest: &str, goes_on: bool) -> Result<(), String> {
        match kind {
            "client>" => self.story.push((number, Line::Send(octets(rest)?))),
            "client!" => self.story.push((number, client_act(rest)?)),
            "client<" => {
                let check = client_check(rest)?;
                match self.story.last_mut() {
                    Some((_, Line::Expect(checks))) if goes_on => checks.push(check),
                    _ => self.story.push((number, Line::Expect(vec![check]))),
                }
            }
            "origin<" if rest == "nothing whole" => self.story.push((number, Line::NothingWhole)),
            "origin<" => {
                let check = origin_check(rest)?;
                match self.story.last_mut() {
                    Some((_, Line::Origin(checks))) if goes_on => checks.push(check),
                    _ => self.story.push((number, Line::Origin(vec![check]))),
                }
            }
            // What an origin sends and does is one answer until the story goes on elsewhere.
            _ => {
                let step = if kind == "origin>" { OriginStep::Send(octets(rest)?) } else { origin_act(rest)? };
                match (self.story.last(), self.answers.last_mut()) {
                    (Some((_, Line::Answered)), Some(answer)) => answer.push(step),
                    _ => {
                        self.answers.push(vec![step]);
                        self.story.push((number, Line::Answered));
                    }
                }
            }
        }
        Ok(())
    }
}

fn client_act(text: &str) -> Result<Line, String> {
    match text.trim() {
        "half-close" => Ok(Line::HalfClose),
        "reconnect" => Ok(Line::Reconnect),
        other => {
            let said = other.strip_prefix("wait for answer ").and_then(|number| number.parse().ok().map(Line::Said));
            said.or_else(|| wait_of(other).map(Line::Wait)).ok_or_else(|| format!("a client cannot {other:?}"))
        }
    }
}

fn origin_act(text: &str) -> Result<OriginStep, String> {
    Ok(match text.trim() {
        "early" => OriginStep::Early,
        "close" => OriginStep::Close,
        "reset" => OriginStep::Reset,
        "stall" => OriginStep::Stall,
        "tunnel" => OriginStep::Tunnel,
        "websocket" => OriginStep::WebSocket,
        "echo" => OriginStep::Echo,
        other => OriginStep::Wait(wait_of(other).ok_or_else(|| format!("an origin cannot {other:?}"))?),
    })
}

fn wait_of(text: &str) -> Option<Duration> {
    let millis = text.strip_prefix("wait ")?.trim().strip_suffix("ms")?;
    millis.parse().ok().map(Duration::from_millis)
}

fn client_check(text: &str) -> Result<Check, String> {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    Ok(match word {
        "status" => Check::Status(statuses(rest, '|')?),
        "field" => named(rest).map(|(name, value)| Check::Field(name, value))?,
        "field-has" => named(rest).map(|(name, value)| Check::FieldHas(name, value))?,
        "no-field" => Check::NoField(rest.to_owned()),
        "error" => Check::Error(rest.to_owned()),
        "body" => Check::Body(Octets(octets(rest)?)),
        "body-has" => Check::BodyHas(Octets(octets(rest)?)),
        "length" => Check::Length(rest.parse().map_err(|_| format!("not a length: {rest:?}"))?),
        "trailer" => named(rest).map(|(name, value)| Check::Trailer(name, value))?,
        "interim" => Check::Interim(statuses(rest, ' ')?),
        "whole" => Check::Whole,
        "cut" => Check::Cut,
        "to-head" => Check::ToHead,
        "closed" => Check::Closed,
        "nothing" => Check::Nothing,
        "closed-or-status" => Check::ClosedOrStatus(rest.parse().map_err(|_| format!("not a status: {rest:?}"))?),
        "never-whole" => Check::NeverWhole,
        "lacks" => Check::Lacks(Octets(octets(rest)?)),
        "octets" => Check::Octets(Octets(octets(rest)?)),
        _ => return Err(format!("a client cannot expect {text:?}")),
    })
}

fn origin_check(text: &str) -> Result<OriginCheck, String> {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    Ok(match word {
        "start" => OriginCheck::Start(rest.to_owned()),
        "field" => named(rest).map(|(name, value)| OriginCheck::Field(name, value))?,
        "no-field" => OriginCheck::NoField(rest.to_owned()),
        "body" => OriginCheck::Body(Octets(octets(rest)?)),
        "trailer" => named(rest).map(|(name, value)| OriginCheck::Trailer(name, value))?,
        "has" => OriginCheck::Has(Octets(octets(rest)?)),
        "lacks" => OriginCheck::Lacks(Octets(octets(rest)?)),
        "whole" => OriginCheck::Whole,
        "cut" => OriginCheck::Cut,
        _ => return Err(format!("an origin cannot expect {text:?}")),
    })
}

fn statuses(text: &str, between: char) -> Result<Vec<u16>, String> {
    text.split(between).map(|word| word.trim().parse().map_err(|_| format!("not a status: {word:?}"))).collect()
}

fn named(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(": ").ok_or_else(|| format!("not `name: value`: {text:?}"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// The octets that a line writes: `\r \n \t \0 \\ \xNN`, `\{TEXT*N}` for N times TEXT, `\{websocket}` for an opening.
fn octets(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let sign = rest[at + 1..].chars().next().ok_or("a `\\` at the end of a line")?;
        let after = &rest[at + 1 + sign.len_utf8()..];
        rest = match sign {
            'x' => {
                let digits = after.get(..2).ok_or("`\\x` without two digits")?;
                out.push(u8::from_str_radix(digits, 16).map_err(|_| format!("\\x{digits} is no octet"))?);
                &after[2..]
            }
            '{' => {
                let (inside, after) = after.split_once('}').ok_or("`\\{` without `}`")?;
                out.extend_from_slice(&special(inside)?);
                after
            }
            _ => {
                out.push(plain_escape(sign)?);
                after
            }
        };
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(out)
}

fn plain_escape(sign: char) -> Result<u8, String> {
    match sign {
        'r' => Ok(b'\r'),
        'n' => Ok(b'\n'),
        't' => Ok(b'\t'),
        '0' => Ok(0),
        '\\' => Ok(b'\\'),
        _ => Err(format!("`\\{sign}` means nothing")),
    }
}

fn special(inside: &str) -> Result<Vec<u8>, String> {
    if inside == "websocket" {
        return Ok(ws::request("/").into_bytes());
    }
    let (what, times) = inside.rsplit_once('*').ok_or_else(|| format!("`\\{{{inside}}}` is not TEXT*N"))?;
    let times: usize = times.parse().map_err(|_| format!("{times:?} is no number"))?;
    Ok(octets(what)?.repeat(times))
}

mod tests {
    //! The runner on itself: a client that talks to the origin directly must satisfy a true story and no false one.

    use super::{Origin, octets, parse, play};

    const TRUE: &str = r"
# Client and origin with nothing between them.
case: a request and its answer
client> POST /a HTTP/1.1\r\nHost: x\r\n
client> Content-Length: 2\r\n\r\nhi
origin< start POST /a HTTP/1.1
origin< field host: x
origin< body hi
origin> HTTP/1.1 102 Wait\r\n\r\n
origin> HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n
origin> 2\r\nok\r\n0\r\nx-sum: 2\r\n\r\n
client< interim 102
client< status 200|204
client< field transfer-encoding: chunked
client< no-field content-length
client< body ok
client< trailer x-sum: 2
client< whole
client> GET /b HTTP/1.1\r\n\r\n
origin< start GET /b HTTP/1.1
origin> HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort
origin! close
client< length 5
client< cut
client< closed
";

    #[test]
    fn a_true_story_holds_and_a_false_one_does_not() {
        let told = |text: &str| {
            let origin = Origin::start();
            play(&parse("t.wire", text).unwrap()[0], origin.address, &origin)
        };
        told(TRUE).unwrap();
        for (said, instead, complaint) in [
            ("body ok", "body no", "the client expected Body"),
            ("client< whole", "client< cut", "the client expected Cut"),
            ("origin< body hi", "origin< body ho", "the origin expected Body"),
            ("client< interim 102", "client< interim 103", "the client expected Interim"),
            ("origin< start GET /b HTTP/1.1\n", "", "1 requests were to reach the origin, and 2 did"),
            ("x-sum: 2\nclient< whole", "x-sum: 3\nclient< whole", "the client expected Trailer"),
        ] {
            let error = told(&TRUE.replace(said, instead)).unwrap_err();
            assert!(error.contains(complaint), "{error}");
        }
    }

    #[test]
    fn lines_are_read_strictly() {
        assert_eq!(octets(r"a\r\n\t\0\\\x7f\{ab*2}z").unwrap(), b"a\r\n\t\0\\\x7fababz");
        for text in [r"\", r"\q", r"\x4", r"\{ab}", r"\{ab*", r"\{ab*x}"] {
            assert!(octets(text).is_err(), "{text}");
        }
        for text in ["client> early", "case: x\nclient< odd 1", "case: x\norigin! fly", "case: x\nserver> x"] {
            assert!(parse("t.wire", text).is_err(), "{text}");
        }
    }
}
