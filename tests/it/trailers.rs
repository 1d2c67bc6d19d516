//! Trailers through an edge: what an application says in them arrives, what only heads may say does not.

use crate::harness::client::Client;
use crate::harness::edge;
use crate::harness::h2;
use crate::harness::origin::{Answer, Origin};

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

const FORGED: &[(&str, &str)] =
    &[("x-sum", "7"), ("coordinator-fwd", "v=1"), ("authorization", "me"), ("content-range", "x")];

#[test]
fn grpc_keeps_its_status_and_nobody_forges_ours() {
    let origin = h2::Echo::start();
    let edge = edge::start(&edge::PLAIN.replace("http://${origin}", &format!("h2c://{}", origin.address)));
    let ask = h2::Ask {
        method: "POST".to_owned(),
        target: "/shop.Cart/Add".to_owned(),
        fields: owned(&[("te", "trailers"), ("content-type", "application/grpc")]),
        body: Some(b"message".to_vec()),
        trailers: owned(FORGED),
    };
    let answer = h2::Client::plain(edge.address()).ask(ask);
    assert_eq!((answer.status, &*answer.body, answer.reset), (200, &b"message"[..], None), "{answer:?}");
    let mut trailers = answer.trailers;
    trailers.sort();
    assert_eq!(trailers, owned(&[("grpc-status", "0"), ("x-sum", "7")]));
    assert_eq!(origin.seen.lock().unwrap()[0].1, "/shop.Cart/Add");
}

#[test]
fn an_http1_origin_sees_only_what_may_stand_in_trailers() {
    let origin = Origin::start();
    origin.always(Answer::bytes(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nCoordinator_Moved: us\r\nx-sum: 8\r\n\r\n",
    ));
    let edge = edge::start(&edge::PLAIN.replace("${origin}", &origin.address.to_string()));
    let ask =
        h2::Ask { method: "POST".to_owned(), target: "/".to_owned(), trailers: owned(FORGED), ..h2::Ask::default() };
    let answer = h2::Client::plain(edge.address()).ask(ask);
    assert_eq!((answer.status, answer.trailers), (200, owned(&[("x-sum", "8")])));
    assert_eq!(origin.request(1).trailers, owned(&[("x-sum", "7")]));

    let mut client = Client::plain(edge.address());
    client.send(
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nCoordinator: x\r\nx-sum: 9\r\n\r\n",
    );
    let answer = client.answer();
    assert_eq!((answer.status, answer.trailers), (200, owned(&[("x-sum", "8")])));
    assert_eq!(origin.request(2).trailers, owned(&[("x-sum", "9")]));
}
