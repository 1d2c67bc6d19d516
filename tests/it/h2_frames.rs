//! Frames of HTTP/2 that break a rule, and those that look as if they did (RFC 9113 sections 3 to 8, RFC 7541): what ends
//! the connection, what ends one stream, and what changes nothing.

use crate::harness::client::Client;
use crate::harness::edge;
use crate::harness::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS,
    data, fields, frame, get, headers, hello, listen,
};
use crate::harness::origin::Origin;

const PRIORITY: u8 = 2;
const PUSH_PROMISE: u8 = 5;
const WINDOW_UPDATE: u8 = 8;
const PADDED: u8 = 8;

const NO_ERROR: u32 = 0;
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;

/// The question that shows whether a connection lives.
const QUESTION: &[u8; 8] = b"are you?";

/// What must come of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// The connection goes on.
    Lives,
    /// The stream is reset, and the connection goes on.
    Reset(u32),
    /// The connection ends with this code.
    Ends(u32),
    /// The connection ends; the engine has one code for all of HPACK, where RFC 9113 section 4.3 has COMPRESSION_ERROR.
    EndsSomehow,
}
use Then::{Ends, EndsSomehow, Lives, Reset};

type Row = (&'static str, Vec<u8>, Then);

/// The head of a request whose content is to come.
fn open(stream: u32) -> Vec<u8> {
    headers(stream, false, &[(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/")])
}

fn settings(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

fn number(kind: u8, stream: u32, value: u32) -> Vec<u8> {
    frame(kind, 0, stream, &value.to_be_bytes())
}

fn of_the_connection() -> Vec<Row> {
    vec![
        ("a setting that nobody knows", settings(0xff, 1), Lives),
        ("push that is neither on nor off", settings(2, 2), Ends(PROTOCOL_ERROR)),
        ("frames smaller than the smallest", settings(5, 16_383), Ends(PROTOCOL_ERROR)),
        ("frames larger than the largest", settings(5, 1 << 24), Ends(PROTOCOL_ERROR)),
        ("extended CONNECT that is neither on nor off", settings(8, 2), Ends(PROTOCOL_ERROR)),
        ("settings of a stream", frame(SETTINGS, 0, 1, &[]), Ends(PROTOCOL_ERROR)),
        ("settings of a wrong size", frame(SETTINGS, 0, 0, &[0; 5]), Ends(FRAME_SIZE_ERROR)),
        ("settings acknowledged with something", frame(SETTINGS, ACK, 0, &[0; 6]), Ends(FRAME_SIZE_ERROR)),
        ("a ping of a stream", frame(PING, 0, 1, QUESTION), Ends(PROTOCOL_ERROR)),
        ("a ping that is too short", frame(PING, 0, 0, &[0; 7]), Ends(FRAME_SIZE_ERROR)),
        ("a ping that is too long", frame(PING, 0, 0, &[0; 9]), Ends(FRAME_SIZE_ERROR)),
        ("an answer to a ping that nobody sent", frame(PING, ACK, 0, &[0; 8]), Lives),
        ("a goodbye on a stream", frame(GOAWAY, 0, 1, &[0; 8]), Ends(PROTOCOL_ERROR)),
        ("a goodbye that is too short", frame(GOAWAY, 0, 0, &[0; 7]), Ends(FRAME_SIZE_ERROR)),
        ("a window that grows by nothing", number(WINDOW_UPDATE, 0, 0), Ends(PROTOCOL_ERROR)),
        ("a window beyond what a number holds", number(WINDOW_UPDATE, 0, u32::MAX >> 1), Ends(FLOW_CONTROL_ERROR)),
        ("a window update of a wrong size", frame(WINDOW_UPDATE, 0, 0, &[0; 3]), Ends(FRAME_SIZE_ERROR)),
        ("a kind that nobody knows", frame(0xfa, 0xff, 7, &[0; 8]), Lives),
        ("a frame larger than agreed", frame(0xfa, 0, 0, &[0; 16_385]), Ends(FRAME_SIZE_ERROR)),
    ]
}

fn of_streams() -> Vec<Row> {
    let good = get("/", &[]);
    vec![
        ("content of no stream", data(0, true, b"x"), Ends(PROTOCOL_ERROR)),
        ("content of an idle stream", data(1, true, b"x"), Ends(PROTOCOL_ERROR)),
        ("a reset of no stream", number(RST_STREAM, 0, 8), Ends(PROTOCOL_ERROR)),
        ("a reset of an idle stream", number(RST_STREAM, 1, 8), Ends(PROTOCOL_ERROR)),
        ("a window of an idle stream", number(WINDOW_UPDATE, 1, 8), Ends(PROTOCOL_ERROR)),
        ("a head of no stream", headers(0, true, &good), Ends(PROTOCOL_ERROR)),
        ("a head of a stream of ours", headers(2, true, &good), Ends(PROTOCOL_ERROR)),
        ("a promise by a client", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x82]), Ends(PROTOCOL_ERROR)),
        ("a priority of no stream", frame(PRIORITY, 0, 0, &[0; 5]), Ends(PROTOCOL_ERROR)),
        ("a priority of an idle stream", frame(PRIORITY, 0, 9, &[0; 5]), Lives),
        ("a priority of a wrong size", frame(PRIORITY, 0, 1, &[0; 4]), Ends(FRAME_SIZE_ERROR)),
        ("a stream that depends on itself", frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 0]), Reset(PROTOCOL_ERROR)),
        ("a reset of a wrong size", [open(1), frame(RST_STREAM, 0, 1, &[0; 3])].concat(), Ends(FRAME_SIZE_ERROR)),
        ("a reset", [open(1), number(RST_STREAM, 1, 8)].concat(), Lives),
        ("a reset with a code that nobody knows", [open(1), number(RST_STREAM, 1, 0xff)].concat(), Lives),
        (
            "content after a reset",
            [open(1), number(RST_STREAM, 1, 8), data(1, true, b"x")].concat(),
            Reset(STREAM_CLOSED),
        ),
        ("a window that grows by nothing", [open(1), number(WINDOW_UPDATE, 1, 0)].concat(), Ends(PROTOCOL_ERROR)),
        (
            "a window beyond what a number holds",
            [open(1), number(WINDOW_UPDATE, 1, u32::MAX >> 1)].concat(),
            Reset(FLOW_CONTROL_ERROR),
        ),
        ("content larger than agreed", [open(1), data(1, true, &[0; 16_385])].concat(), Ends(FRAME_SIZE_ERROR)),
        ("padding longer than content", [open(1), frame(DATA, PADDED, 1, b"\x06test")].concat(), Ends(PROTOCOL_ERROR)),
        ("trailers that do not end", [open(1), headers(1, false, &[("a", "b")])].concat(), Reset(PROTOCOL_ERROR)),
    ]
}

fn of_heads() -> Vec<Row> {
    let good = fields(&get("/", &[]));
    let begun = || frame(HEADERS, END_STREAM, 1, &good);
    let block = |octets: &[u8]| frame(HEADERS, END_HEADERS | END_STREAM, 1, &[&good[..], octets].concat());
    vec![
        ("a head interrupted by a ping", [begun(), frame(PING, 0, 0, QUESTION)].concat(), Ends(PROTOCOL_ERROR)),
        ("a head interrupted by an unknown frame", [begun(), frame(0xfa, 0, 0, &[])].concat(), Ends(PROTOCOL_ERROR)),
        ("a head interrupted by another", [begun(), headers(3, true, &[])].concat(), Ends(PROTOCOL_ERROR)),
        (
            "a head that goes on in another stream",
            [begun(), frame(CONTINUATION, END_HEADERS, 3, &[])].concat(),
            Ends(PROTOCOL_ERROR),
        ),
        (
            "a continuation of what is over",
            [open(1), frame(CONTINUATION, END_HEADERS, 1, &[])].concat(),
            Ends(PROTOCOL_ERROR),
        ),
        (
            "padding longer than a head",
            frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, b"\xff\x82"),
            Ends(PROTOCOL_ERROR),
        ),
        ("index 0", block(b"\x80"), EndsSomehow),
        ("an index beyond the table", block(b"\xfe"), EndsSomehow),
        ("a name beyond the table", block(b"\x7f\x20\x01y"), EndsSomehow),
        ("a number without end", block(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"), EndsSomehow),
        ("a string that is cut", block(b"\x40\x05ab"), EndsSomehow),
        ("a Huffman code of the end", block(b"\x00\x84\xff\xff\xff\xff\x01y"), EndsSomehow),
        ("Huffman padding of more than 7 bits", block(b"\x00\x83\x49\x50\x9f\x84\x49\x50\x9f\xff"), EndsSomehow),
        ("Huffman padding of zeros", block(b"\x00\x01x\x83\x49\x50\x90"), EndsSomehow),
        ("a change of the table behind fields", block(b"\x20"), EndsSomehow),
        (
            "a table larger than agreed",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[b"\x3f\xe2\x1f", &good[..]].concat()),
            EndsSomehow,
        ),
    ]
}

/// What came of it: the end of the connection, or the reset of a stream and the answer to [`QUESTION`], or that alone. The
/// reset and the answer may come in either order, so it is known before which of both to wait for.
fn outcome(client: &mut Client, expects_reset: bool) -> Result<Then, Vec<Frame>> {
    let is_pong = |frame: &Frame| frame.kind == PING && frame.flags & ACK != 0 && frame.payload == QUESTION;
    let is_last = |frame: &Frame| if expects_reset { frame.kind == RST_STREAM } else { is_pong(frame) };
    let (mut came, silent) = listen(client, |frame| frame.kind == GOAWAY || is_last(frame));
    let code = |kind| came.iter().find(|frame: &&Frame| frame.kind == kind).and_then(Frame::code);
    match (code(GOAWAY), code(RST_STREAM)) {
        (Some(code), _) if code != NO_ERROR && !listen(client, |_| false).1 => Ok(Ends(code)),
        (None, reset) if !silent => {
            if !came.iter().any(is_pong) {
                came.extend(listen(client, is_pong).0);
            }
            let lives = came.last().is_some_and(|frame| frame.kind != GOAWAY) && came.iter().any(is_pong);
            lives.then_some(reset.map_or(Lives, Reset)).ok_or(came)
        }
        _ => Err(came),
    }
}

#[test]
fn what_breaks_a_rule_ends_as_much_as_the_rule_says() {
    let origin = Origin::start();
    let edge = edge::start(&edge::PLAIN.replace("${origin}", &origin.address.to_string()));
    let mut failures = Vec::new();
    for (name, octets, expected) in [of_the_connection(), of_streams(), of_heads()].concat() {
        let mut client = Client::plain(edge.address());
        client.send(hello()).send(octets).send(frame(PING, 0, 0, QUESTION));
        match (outcome(&mut client, matches!(expected, Reset(_))), expected) {
            (Ok(Ends(_)), EndsSomehow) => {}
            (Ok(then), _) if then == expected => {}
            (other, _) => failures.push(format!("{name}: {expected:?} was expected, and came {other:?}")),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_client_begins_with_its_settings() {
    let origin = Origin::start();
    let edge = edge::start(&edge::PLAIN.replace("${origin}", &origin.address.to_string()));
    for first in [headers(1, true, &get("/", &[])), frame(PING, 0, 0, QUESTION), frame(SETTINGS, ACK, 0, &[])] {
        let mut client = Client::plain(edge.address());
        client.send(PREFACE).send(first).send(headers(3, true, &get("/", &[])));
        assert_eq!(outcome(&mut client, false), Ok(Ends(PROTOCOL_ERROR)));
    }
    assert_eq!(origin.seen().len(), 0);
}
