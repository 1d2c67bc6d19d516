//! The demo as a new user meets it: what it prints is tried, line by line, and it leaves nothing behind.

use crate::harness::client::Client;
use crate::harness::folder::{self, Folder};
use crate::harness::origin::{Answer, Origin};
use crate::harness::process::{Process, Signal, run};
use crate::harness::{certs, h2, wait, ws};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Below the ports that the system gives out; the demo passes over what is taken.
const PORT: &str = "21400";

/// Starting the demo makes certificates and opens four places, on a machine that runs other tests.
const START: Duration = Duration::from_secs(60);

fn start(temporary: &Folder) -> Process {
    Process::start_with_temporary(temporary.path(), &["demo", "--port", PORT])
}

/// Waits until it has said all, and gives that.
pub fn introduced(demo: &mut Process) -> Vec<String> {
    let look = || (demo.lines(), demo.is_over());
    wait::within(START, "the introduction", look, |(lines, over)| {
        *over || lines.iter().any(|line| line.starts_with("Ctrl-C"))
    })
    .0
}

fn files(temporary: &Folder) -> Vec<String> {
    let entries = std::fs::read_dir(temporary.path()).expect("it is there");
    entries.map(|entry| entry.expect("it is read").file_name().to_string_lossy().into_owned()).collect()
}

/// A command, and what is printed below it.
#[derive(Debug, Clone)]
struct Stop {
    words: Vec<String>,
    status: Option<u16>,
    says: String,
}

fn stops(lines: &[String]) -> Vec<Stop> {
    let pairs = lines.windows(2).filter_map(|pair| Some((&pair[0], pair[1].strip_prefix("  #   -> ")?)));
    pairs
        .map(|(command, says)| {
            let status = says.split(',').next().and_then(|word| word.parse().ok());
            Stop { words: words(command), status, says: says.to_owned() }
        })
        .collect()
}

/// Splits a command as a shell does, as far as single quotes go.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, part) in command.split('\'').enumerate() {
        match at % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_owned)),
            _ => words.push(part.to_owned()),
        }
    }
    words
}

/// What a curl line asks for.
#[derive(Debug, Default)]
struct Curl {
    method: Option<String>,
    body: String,
    ca: Option<String>,
    streams: bool,
    url: String,
}

fn curl(words: &[String]) -> Curl {
    let mut curl = Curl::default();
    let mut words = words[1..].iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().expect("the option has a value").clone();
        match word.as_str() {
            "-i" => {}
            "-N" => curl.streams = true,
            "-X" => curl.method = Some(value()),
            "-d" => curl.body = value(),
            "--cacert" => curl.ca = Some(value()),
            url => curl.url = url.to_owned(),
        }
    }
    curl
}

/// Where a URL leads, and what it asks for there.
fn door(url: &str) -> (SocketAddr, String) {
    let (_, rest) = url.split_once("://").expect("a URL");
    let (address, target) = rest.split_at(rest.find('/').expect("a path"));
    (address.parse().expect("an address"), target.to_owned())
}

/// Does what a curl line does; status, fields, content.
fn ask(curl: &Curl) -> (u16, Vec<(String, String)>, String) {
    let (address, target) = door(&curl.url);
    if let Some(ca) = &curl.ca {
        let config = certs::client_config(&std::fs::read_to_string(ca).expect("the CA is there"), &["h2"], None);
        let answer = h2::Client::tls(address, config, "127.0.0.1").get(&target);
        return (answer.status, answer.fields, String::from_utf8_lossy(&answer.body).into_owned());
    }
    let mut client = Client::plain(address);
    if curl.streams {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: {address}\r\n\r\n"));
        let (status, fields) = client.next_head();
        return (status, fields, String::from_utf8_lossy(&client.octets(20)).into_owned());
    }
    let method = curl.method.as_deref().unwrap_or("GET");
    let answer = client.ask(method, &target, &[], curl.body.as_bytes());
    (answer.status, answer.fields.clone(), answer.text())
}

fn check(stop: &Stop) {
    let curl = curl(&stop.words);
    let (status, fields, content) = ask(&curl);
    let field =
        |name: &str| fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| &**value);
    assert_eq!(Some(status), stop.status, "{stop:?}: {content}");
    let json: serde_json::Value = serde_json::from_str(&content).unwrap_or_default();
    match stop.says.split_once("served_by ") {
        Some((_, place)) => assert_eq!(json["served_by"], place, "{stop:?}: {content}"),
        None => assert_eq!(json["served_by"], serde_json::Value::Null, "{stop:?}: {content}"),
    }
    for name in ["Allow", "Location"] {
        if stop.says.ends_with(&format!("see {name}")) {
            assert!(field(name).is_some(), "{stop:?}: {fields:?}");
        }
    }
    if stop.says.contains("the edge itself") && status >= 400 {
        assert!(field("proxy-status").is_some_and(|said| said.starts_with("fr; error=")), "{stop:?}: {fields:?}");
    }
}

#[test]
fn what_it_prints_is_what_happens_and_nothing_stays() {
    let temporary = folder::new();
    let mut demo = start(&temporary);
    let lines = introduced(&mut demo);
    let stops = stops(&lines);
    assert!(stops.len() >= 15, "{lines:#?}");
    let mut kinds = std::collections::BTreeMap::<&str, usize>::new();
    for stop in &stops {
        match stop.words[0].as_str() {
            "curl" => check(stop),
            "websocat" => {
                let (address, target) = door(&stop.words[1]);
                ws::WebSocket::open(Client::plain(address), &target).echoes("hello");
                assert_eq!(stop.status, Some(101));
            }
            program => {
                assert_eq!(program, env!("CARGO_BIN_EXE_coordinator"));
                let words: Vec<&str> = stop.words[1..].iter().map(String::as_str).collect();
                let said = String::from_utf8_lossy(&run(&words).stdout).into_owned();
                assert!(said.lines().any(|line| line == stop.says), "{said}");
            }
        }
        *kinds.entry(stop.words[0].as_str()).or_default() += 1;
    }
    assert_eq!(kinds.len(), 3, "{kinds:?}");
    demo.line("fr  GET /v1/items/847.json -> local");
    demo.line("jp  GET /v1/users/448/wishlist.json -> remote fr (home_elsewhere)  200  user:448");
    demo.line("fr  GET /nothing/here -> refused (no_route)  404");

    let curls = stops.iter().filter(|stop| stop.words[0] == "curl");
    let doors: Vec<SocketAddr> = curls.map(|stop| door(&curl(&stop.words).url).0).collect();
    assert_eq!(files(&temporary).len(), 1);
    demo.signal(Signal::Int);
    assert_eq!(demo.end(), Some(0), "{:#?}", demo.lines());
    assert_eq!(files(&temporary), Vec::<String>::new());
    assert!(doors.iter().all(|door| TcpStream::connect(door).is_err()), "no door stays open");
}

#[test]
fn two_share_no_port_and_each_way_to_end_leaves_nothing() {
    let temporary = folder::new();
    let mut demos = [start(&temporary), start(&temporary)];
    let mut doors = std::collections::BTreeSet::new();
    for demo in &mut demos {
        let lines = introduced(demo);
        let of: Vec<_> = lines.iter().filter(|line| line.contains("admin http://")).cloned().collect();
        assert_eq!(of.len(), 3, "{lines:#?}");
        doors.extend(
            of.iter().flat_map(|line| line.split_whitespace()).filter(|word| word.contains("://")).map(str::to_owned),
        );
    }
    assert_eq!(doors.len(), 18, "{doors:#?}");
    demos[0].signal(Signal::Term);
    assert_eq!(demos[0].end(), Some(0));
    demos[1].signal(Signal::Hup);
    assert_eq!(demos[1].end(), Some(0));
    assert_eq!(files(&temporary), Vec::<String>::new());
}

#[test]
fn a_stop_while_it_starts_leaves_nothing() {
    for signal in [Signal::Int, Signal::Term] {
        let temporary = folder::new();
        let mut demo = start(&temporary);
        wait::until("the first file", || files(&temporary), |files| !files.is_empty());
        demo.signal(signal);
        assert_eq!(demo.end(), Some(0), "{:#?}", demo.lines());
        assert_eq!(files(&temporary), Vec::<String>::new());
        assert!(!demo.lines().iter().any(|line| line.starts_with("error")), "{:#?}", demo.lines());
    }
}

/// Where the edges of a demo answer: the public doors and the admin doors, by name.
pub fn doors(lines: &[String]) -> std::collections::BTreeMap<String, [SocketAddr; 2]> {
    let edges = lines.iter().filter(|line| line.contains("admin http://"));
    let addresses = |line: &String| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = |word: &str| word.split_once("://").and_then(|(_, at)| at.parse().ok()).expect("an address");
        (words[0].to_owned(), [at(words[1]), at(words[words.len() - 1])])
    };
    edges.map(addresses).collect()
}

const OWN: &str = r#"
[homes.user]
claim = "registration"

[[route]]
match = "GET /near"
to = "local"

[[route]]
match = "/shared/"
to = "central"

[[route]]
match = "POST /register"
to = "local"
claim = { space = "user", key = "response.header:Location", pattern = "/u/{user}" }

[[route]]
match = "/u/{user}/"
to = "home:user"
"#;

fn own(temporary: &Folder, routes: &str, origins: &[&str]) -> Process {
    let routes = temporary.write("own.toml", routes).display().to_string();
    let mut words = vec!["demo", "--port", PORT, "--rtt", "all=0ms", "--routes", &routes];
    origins.iter().for_each(|origin| words.extend(["--origin", origin]));
    Process::start_with_temporary(temporary.path(), &words)
}

#[test]
fn ones_own_application_stands_behind_the_edges() {
    let (temporary, edges, central) = (folder::new(), Origin::start(), Origin::start());
    edges.always(Answer::ok("near"));
    central.always(Answer::ok("shared"));
    let mut demo = own(&temporary, OWN, &[&edges.url(), &format!("central={}", central.url())]);
    let lines = introduced(&mut demo);
    let doors = doors(&lines);

    // What is printed fits the routes, and nothing of the sample's is.
    let printed = |text: &str| lines.iter().any(|line| line.contains(text));
    assert!(printed("# POST /register: local; its answer makes this edge the home of a new user"), "{lines:#?}");
    assert!(printed(&format!("curl -i http://{}/near", doors["fr"][0])), "{lines:#?}");
    assert!(printed("/u/USER") && printed("homes set KEY fr --space user") && !printed("/v1/"), "{lines:#?}");
    assert!(!printed("warning"), "{lines:#?}");

    let ask = |edge: &str, method: &str, target: &str| Client::plain(doors[edge][0]).ask(method, target, &[], b"");
    let near = ask("fr", "GET", "/near");
    assert_eq!(near.field("coordinator"), Some("edge=fr, decision=local, to=fr, reason=route"));
    assert_eq!((near.text().as_str(), edges.request(1).field("coordinator")), ("near", Some("edge=fr, as=local")));
    let shared = ask("jp", "PUT", "/shared/x");
    assert_eq!(shared.field("coordinator"), Some("edge=jp, decision=central, to=central, reason=route"));
    assert_eq!(central.request(1).field("coordinator"), Some("edge=jp, as=central"));

    edges.next(Answer::bytes("HTTP/1.1 201 Created\r\nLocation: /u/7\r\nContent-Length: 0\r\n\r\n"));
    assert_eq!(ask("us", "POST", "/register").status, 201);
    let far = || ask("jp", "GET", "/u/7/cart");
    let far = wait::until("jp to know the home", far, |far| far.status == 200);
    let said = r#"edge=jp, decision=remote, to=us, reason=home_elsewhere, key="user:7", epoch=1"#;
    assert_eq!(far.field("coordinator"), Some(said));
    let told = edges.seen().pop().and_then(|seen| seen.field("coordinator").map(str::to_owned));
    assert_eq!(told.as_deref(), Some(r#"edge=jp, key="user:7", home=us, epoch=1, as=home"#));
    assert_eq!(ask("fr", "GET", "/nothing").field("coordinator"), Some("edge=fr"));

    // Nobody else sends anything: no trickle, no users made up.
    let targets = |origin: &Origin| origin.seen().into_iter().map(|seen| seen.target).collect::<Vec<_>>();
    assert_eq!(
        (targets(&edges), targets(&central)),
        (vec!["/near".into(), "/register".into(), "/u/7/cart".into()], vec!["/shared/x".to_owned()])
    );
    demo.signal(Signal::Int);
    assert_eq!(demo.end(), Some(0));
    assert_eq!(files(&temporary), ["own.toml"]);
}

#[test]
fn routes_that_change_are_taken_over() {
    let (temporary, origin) = (folder::new(), Origin::start());
    origin.always(Answer::ok("here"));
    let mut demo = own(&temporary, OWN, &[&origin.url()]);
    let [public, admin] = doors(&introduced(&mut demo))["fr"];
    let ask = || Client::plain(public).get("/new").status;
    assert_eq!(ask(), 404);
    temporary.write("own.toml", format!("{OWN}\n[[route]]\nmatch = \"/new\"\nto = \"local\"\n"));
    let reloaded = run(&["reload", "--admin", &admin.to_string()]);
    assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));
    assert_eq!(ask(), 200);
}

#[test]
fn what_is_wrong_with_ones_own_application_is_told_at_the_start() {
    let temporary = folder::new();
    // A port that refuses: its listener has gone.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut demo = own(&temporary, OWN, &[&format!("http://{gone}")]);
    let lines = introduced(&mut demo);
    let says =
        format!("warning: http://{gone}, the origin of fr, us, jp, central, does not answer: Connection refused");
    assert!(lines.iter().any(|line| line.starts_with(&says)), "{lines:#?}");
    let answer = Client::plain(doors(&lines)["fr"][0]).get("/near");
    assert_eq!((answer.status, answer.error().as_deref()), (502, Some("connection_refused")));
    assert!(answer.text().contains("Start the server there"), "{}", answer.text());
    drop(demo);

    for (routes, origins, says) in [
        ("[[route]]\nmatch = \"/\"\nto = \"locl\"\n", vec!["http://h"], "own.toml:3:6"),
        (
            "[central]\nurl = [\"https://h\"]\n",
            vec!["http://h"],
            "have doors, origins, Central and edge table of their own",
        ),
        (OWN, vec!["fr=http://h"], "no origin for us, jp, central: add --origin us=URL"),
        (OWN, vec![], "--origin"),
    ] {
        let mut demo = own(&temporary, routes, &origins);
        assert_eq!(demo.end(), Some(2), "{:#?}", demo.lines());
        assert!(demo.lines().iter().any(|line| line.contains(says)), "{says}: {:#?}", demo.lines());
    }
}
