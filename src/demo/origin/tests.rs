//! The shop over real connections, by hand-written requests.

use super::*;
use std::net::SocketAddr;

/// A shop named `name`, gone when the test's runtime is.
async fn shop(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { start(name, listener).await });
    address
}

/// Sends a request on a connection of its own; status, head and content of the answer.
async fn ask(shop: SocketAddr, request: &str, fields: &str, content: &str) -> (u16, String, Value) {
    let mut stream = TcpStream::connect(shop).await.unwrap();
    let length = content.len();
    let text = format!(
        "{request} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}Content-Length: {length}\r\n\r\n{content}"
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut came = String::new();
    stream.read_to_string(&mut came).await.unwrap();
    let (head, content) = came.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), serde_json::from_str(content).unwrap_or(Value::Null))
}

#[tokio::test]
async fn items_are_sold_and_changed() {
    let shop = shop("fr").await;
    let (status, _, before) = ask(shop, "GET /v1/items/847.json", "", "").await;
    assert_eq!((status, &before["served_by"], &before["version"]), (200, &json!("fr"), &json!(0)));
    let (status, _, changed) = ask(shop, "POST /v1/items/847.json", "", r#"{"name":"Tea"}"#).await;
    assert_eq!((status, &changed["version"], &changed["item"]["name"]), (200, &json!(1), &json!("Tea")));
    assert_eq!(ask(shop, "GET /v1/items/847.json", "", "").await.2["item"]["name"], "Tea");
    for missing in [
        "GET /v1/items/1000.json",
        "GET /v1/items/0.json",
        "GET /v1/items/+1.json",
        "GET /v1/items/7",
        "GET /",
        "GET /v1/items/847_jp.json",
        "GET /v1/items/_fr.json",
        "GET /v1/items/fr.json",
    ] {
        assert_eq!(ask(shop, missing, "", "").await.0, 404, "{missing}");
    }
    let (status, head, _) = ask(shop, "DELETE /v1/items/847.json", "", "").await;
    assert!(status == 405 && head.contains("allow: get, head, post"), "{head}");
    assert_eq!(ask(shop, "GET /healthz", "", "").await.0, 200);
    let (status, _, placed) = ask(shop, "GET /v1/items/847_fr.json", "", "").await;
    assert_eq!((status, &placed["id"], &placed["item"]["name"]), (200, &json!(847), &json!("Tea")));
}

#[tokio::test]
async fn central_sells_more_than_the_copies_hold() {
    let (central, fr) = (shop(CENTRAL).await, shop("fr").await);
    for (place, item, status) in [(central, 5001, 200), (central, 9999, 200), (central, 10_000, 404), (fr, 5001, 404)] {
        assert_eq!(ask(place, &format!("GET /v1/items/{item}.json"), "", "").await.0, status, "{item}");
    }
}

#[tokio::test]
async fn users_are_minted_once_and_carry_their_edge() {
    let (fr, de) = (shop("fr").await, shop("de").await);
    let mut ids = std::collections::HashSet::new();
    for place in [fr, de, fr, de] {
        let (status, head, made) = ask(place, "POST /v1/users", "", r#"{"mail":"a@b"}"#).await;
        let user = made["user"].as_str().unwrap().to_owned();
        assert!(status == 201 && head.contains(&format!("location: /v1/users/{user}")), "{head}");
        assert!(user.starts_with(made["served_by"].as_str().unwrap()));
        assert!(ids.insert(user));
    }
}

#[tokio::test]
async fn a_wish_list_is_kept_and_the_header_is_shown() {
    let shop = shop("fr").await;
    assert_eq!(ask(shop, "GET /v1/users/448/wishlist.json", "", "").await.2["wishlist"], json!([]));
    let said = r#"edge=de, key="user:448", home=fr, epoch=3, as=home"#;
    let field = format!("Coordinator: {said}\r\n");
    let (status, head, kept) = ask(shop, "PUT /v1/users/448/wishlist.json", &field, "[847]").await;
    assert_eq!((status, &kept["wishlist"], &kept["coordinator"]), (200, &json!([847]), &json!(said)));
    assert!(head.contains("x-coordinator-said: edge=de"), "{head}");
    assert_eq!(ask(shop, "GET /v1/users/448/wishlist.json", "", "").await.2["wishlist"], json!([847]));
    let large = "x".repeat(CONTENT_MAX + 1);
    assert_eq!(ask(shop, "PUT /v1/users/448/wishlist.json", "", &large).await.0, 413);
}

#[tokio::test]
async fn content_that_is_cut_is_not_kept() {
    let shop = shop("fr").await;
    let mut stream = TcpStream::connect(shop).await.unwrap();
    let head = "PUT /v1/users/448/wishlist.json HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n[8";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut came = String::new();
    let _ = stream.read_to_string(&mut came).await;
    assert!(!came.starts_with("HTTP/1.1 200"), "{came}");
    assert_eq!(ask(shop, "GET /v1/users/448/wishlist.json", "", "").await.2["wishlist"], json!([]));
}

#[tokio::test]
async fn a_message_comes_back() {
    let mut stream = TcpStream::connect(shop("fr").await).await.unwrap();
    let opening = "GET /v1/chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(opening.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    // "Hello", masked, as RFC 6455 section 5.7 prints it; then a ping, and a close.
    stream.write_all(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58\x89\x81\0\0\0\0p\x88\x80\0\0\0\0").await.unwrap();
    let mut came = Vec::new();
    stream.read_to_end(&mut came).await.unwrap();
    assert_eq!(came, b"\x81\x05Hello\x8a\x01p\x88\0");
}

#[tokio::test]
async fn events_come_one_by_one() {
    let mut stream = TcpStream::connect(shop("fr").await).await.unwrap();
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut came = String::new();
    let mut space = [0; 1024];
    while !came.contains("\"tick\":1}") {
        let count = stream.read(&mut space).await.unwrap();
        came.push_str(std::str::from_utf8(&space[..count]).unwrap());
    }
    assert!(came.contains("text/event-stream") && !came.contains("\"tick\":2}"), "{came}");
}

#[tokio::test]
async fn dropping_the_shop_ends_its_connections() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let running = tokio::spawn(async move { start("fr", listener).await });
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    stream.read_u8().await.unwrap();
    running.abort();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(TcpStream::connect(address).await.is_err(), "the door is closed");
}
