use super::*;
use crate::message::Scheme;

const LIMITS: HeadLimits = HeadLimits { head: 1024, fields: 10, uri: 100 };

#[test]
fn a_request_is_read() {
    let text = b"GET /a?b HTTP/1.1\r\nHost: x\r\nA:\t b c \t\r\nEmpty:\r\n\r\nrest";
    let Ok(Parsed::Whole(head, taken)) = head::request(text, Scheme::Http, &LIMITS) else { panic!() };
    assert_eq!(taken, text.len() - 4);
    assert_eq!(format!("{:?}", head.fields), "[Host: x, A: b c, Empty: ]");
}
