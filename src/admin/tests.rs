//! The admin and observe doors over real sockets, with a scripted panel.

use super::*;
use crate::config::plan::Address;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Fake {
    ready: bool,
}

impl Panel for Fake {
    fn ready(&self) -> Result<(), Vec<String>> {
        if self.ready { Ok(()) } else { Err(vec!["draining".into(), "no map".into()]) }
    }

    fn metrics(&self) -> String {
        "# HELP a_b Things.\n# TYPE a_b counter\na_b_total 1\n# TYPE c gauge\nc 2.0\n# EOF\n".into()
    }

    fn status(&self) -> serde_json::Value {
        serde_json::json!({"edge": "fr"})
    }

    fn live(&self) -> serde_json::Value {
        serde_json::json!({"name": "fr"})
    }

    fn faults(&self, order: Option<Order>) -> Result<serde_json::Value, Refused> {
        match order {
            _ if !self.ready => Err(Refused::Off),
            Some(order) if order.place == "mars" => Err(Refused::Wrong("there is no such place".into())),
            order => Ok(serde_json::json!({"order": format!("{order:?}")})),
        }
    }

    fn explain(&self, ask: Ask) -> Result<String, String> {
        if ask.url == "/bad" { Err("no".into()) } else { Ok(format!("{ask:?}")) }
    }

    fn home(&self, space: &str, key: &str) -> Option<serde_json::Value> {
        (key != "0").then(|| serde_json::json!({"space": space, "key": key}))
    }

    fn reload(&self) -> Later<Result<String, String>> {
        let outcome = if self.ready { Ok("2 routes changed".into()) } else { Err("edge.toml:3: no".into()) };
        Box::pin(async move { outcome })
    }

    fn release(&self, id: &str) -> Result<serde_json::Value, Unreleased> {
        match id {
            "7" => Ok(serde_json::json!({ "changes": 3 })),
            _ => Err(Unreleased::Other("7 is held".to_owned())),
        }
    }
    fn drain(&self) -> Later<serde_json::Value> {
        Box::pin(async { serde_json::json!({"cut": 0}) })
    }
}

async fn open(kind: Kind, ready: bool) -> (AdminDoor, std::net::SocketAddr) {
    let any = Address::Tcp(([127, 0, 0, 1], 0).into());
    let door = AdminDoor::open(&any, kind, Arc::new(Fake { ready })).await.unwrap();
    let Address::Tcp(address) = *door.address() else { panic!("a TCP door") };
    (door, address)
}

async fn talk(stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite, request: &str) -> (u16, String) {
    let mut stream = std::pin::pin!(stream);
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.get(9..12).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("{answer:?}")), answer)
}

async fn ask(at: std::net::SocketAddr, line: &str, fields: &str) -> (u16, String) {
    let host = if fields.contains("Host:") { "" } else { "Host: localhost:9900\r\n" };
    let stream = tokio::net::TcpStream::connect(at).await.unwrap();
    talk(stream, &format!("{line} HTTP/1.1\r\n{host}{fields}Connection: close\r\n\r\n")).await
}

#[tokio::test]
async fn the_observe_door_shows_health_and_metrics_and_nothing_else() {
    let (_door, at) = open(Kind::Observe, false).await;
    for (line, status, holds) in [
        ("GET /health/live", 200, "live"),
        ("GET /health/ready", 503, "draining\nno map\n"),
        ("HEAD /health/live", 200, "\r\n\r\n"),
        (
            "GET /metrics",
            200,
            "# HELP a_b_total Things.\n# TYPE a_b_total counter\na_b_total 1\n# TYPE c gauge\nc 2.0\n",
        ),
        ("POST /metrics", 405, "allow: GET, HEAD"),
        ("GET /status", 404, ""),
        ("POST /drain", 404, ""),
        ("GET /homes/user/1", 404, ""),
    ] {
        let (got, answer) = ask(at, line, "Host: pod.cluster.local\r\n").await;
        assert_eq!(got, status, "{line}: {answer}");
        assert!(answer.contains(holds), "{line}: {answer}");
    }
}

#[tokio::test]
async fn the_admin_door_shows_and_does() {
    let (_door, at) = open(Kind::Admin, true).await;
    for (line, status, holds) in [
        ("GET /health/ready", 200, "ready"),
        ("GET /status", 200, "\"edge\": \"fr\""),
        ("GET /homes/user/a%2Fb", 200, "\"key\": \"a/b\""),
        ("GET /homes/user/0", 404, ""),
        ("GET /homes/user", 400, ""),
        ("GET /homes/user/%ff", 400, ""),
        (
            "GET /explain?url=/x+y&method=POST&header=A:%20b&format=json",
            200,
            "url: \"/x+y\", headers: [(\"A\", \"b\")]",
        ),
        ("GET /explain", 400, "url is missing"),
        ("GET /explain?url=/bad", 400, "no"),
        ("GET /explain?url=/&x=1", 400, "`x`"),
        ("POST /reload", 200, "2 routes"),
        ("POST /drain", 200, "\"cut\": 0"),
        ("GET /reload", 405, "allow: POST"),
        ("GET /nothing", 404, ""),
    ] {
        let (got, answer) = ask(at, line, "").await;
        assert_eq!(got, status, "{line}: {answer}");
        assert!(answer.contains(holds), "{line}: {answer}");
    }
}

#[tokio::test]
async fn a_refused_reload_says_why() {
    let (_door, at) = open(Kind::Admin, false).await;
    let (status, answer) = ask(at, "POST /reload", "").await;
    assert_eq!(status, 422);
    assert!(answer.ends_with("edge.toml:3: no"), "{answer}");
}

#[tokio::test]
async fn web_pages_cannot_use_the_admin_door() {
    let (_door, at) = open(Kind::Admin, true).await;
    for (line, fields, status) in [
        ("GET /status", "Host: evil.example\r\n", 421),
        ("GET /status", "Host: localhost.evil.example:9900\r\n", 421),
        ("GET /status", "Host: 127.0.0.1:9900\r\n", 200),
        ("GET /status", "Host: [::1]:9900\r\n", 200),
        ("GET /status", "Host: LOCALHOST\r\n", 200),
        ("POST /drain", "Origin: http://evil.example\r\n", 403),
        ("POST /drain", "Origin: null\r\n", 403),
        ("POST /drain", "Origin: http://localhost:9900\r\n", 200),
        ("POST /drain", "Content-Type: text/plain;charset=UTF-8\r\n", 415),
        ("POST /drain", "Content-Type: application/x-www-form-urlencoded\r\n", 415),
        ("POST /drain", "Content-Type: application/json\r\n", 200),
    ] {
        let (got, answer) = ask(at, line, fields).await;
        assert_eq!(got, status, "{line} {fields}: {answer}");
    }
}

#[tokio::test]
async fn a_unix_socket_is_its_owners_and_replaces_a_dead_one() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let address = Address::Unix(path.clone());
    let door = AdminDoor::open(&address, Kind::Admin, Arc::new(Fake { ready: true })).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let second = AdminDoor::open(&address, Kind::Admin, Arc::new(Fake { ready: true })).await;
    assert!(second.is_err(), "a socket in use is not taken away");
    let stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    // Web pages cannot reach it, so any Host will do.
    let request = "GET /status HTTP/1.1\r\nHost: any.name\r\nConnection: close\r\n\r\n";
    assert_eq!(talk(stream, request).await.0, 200);
    drop(door);
    assert!(!path.exists());
}

#[tokio::test]
async fn metrics_come_in_the_form_that_is_asked_for() {
    let (_door, at) = open(Kind::Observe, true).await;
    let prometheus =
        "Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1\r\n";
    let (_, open) = ask(at, "GET /metrics", prometheus).await;
    assert!(open.contains("content-type: application/openmetrics-text;") && open.ends_with("# EOF\n"), "{open}");
    let (_, plain) = ask(at, "GET /metrics", "Accept: */*\r\n").await;
    assert!(plain.contains("content-type: text/plain; version=0.0.4") && !plain.contains("# EOF"), "{plain}");
}

#[tokio::test]
async fn faults_are_read_and_refused_with_what_to_do() {
    let (_door, at) = open(Kind::Admin, true).await;
    for (line, status, holds) in [
        ("GET /faults", 200, "None"),
        ("POST /faults?place=us&do=cut&for=30s", 200, "Cut, lasts: 30s"),
        ("POST /faults?place=us&do=delay&by=200ms&for=1m", 200, "Delay(200ms), lasts: 60s"),
        ("POST /faults?place=%6as&do=mend", 200, r#"place: \"js\", what: Mend"#),
        ("POST /faults?place=mars&do=mend", 400, "no such place"),
        ("POST /faults?place=us&do=cut&for=30", 400, "30"),
        ("POST /faults", 400, "place is missing"),
        ("PUT /faults", 405, "GET, HEAD, POST"),
    ] {
        let (seen, answer) = ask(at, line, "").await;
        assert_eq!((seen, answer.contains(holds)), (status, true), "{line}: {answer}");
    }
    let (status, _) = ask(at, "POST /faults?place=us&do=mend", "Origin: http://evil.example\r\n").await;
    assert_eq!(status, 403);
    let (_off, at) = open(Kind::Admin, false).await;
    assert_eq!(ask(at, "GET /faults", "").await.0, 403);
    let (_observe, at) = open(Kind::Observe, true).await;
    for path in ["/", "/page.js", "/live", "/faults"] {
        assert_eq!(ask(at, &format!("GET {path}"), "").await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn the_page_is_our_own_files_under_a_strict_policy() {
    let (_door, at) = open(Kind::Admin, true).await;
    for (path, kind, holds) in
        [("/", "text/html", "/page.js"), ("/page.css", "text/css", ":root"), ("/page.js", "text/javascript", "/live")]
    {
        let (status, answer) = ask(at, &format!("GET {path}"), "").await;
        assert_eq!(status, 200);
        for wanted in [kind, holds, "default-src 'none'", "nosniff"] {
            assert!(answer.contains(wanted), "{path}: {wanted}: {answer}");
        }
        assert!(!answer.contains("://") || path == "/page.js", "{path} names another place");
        assert!(!answer.contains(" style=") && !answer.contains(" onclick="), "{path}: the policy would refuse it");
    }
}
