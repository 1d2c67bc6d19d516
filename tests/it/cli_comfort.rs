//! What makes the command line comfortable: `top`, `homes watch`, `completions`, `man`.

use crate::harness::edge::ALONE;
use crate::harness::process::{self, Process, Signal};
use crate::harness::relay::Relay;
use crate::harness::{client::Client, edge, wait};
use std::process::{Command, Output, Stdio};

const SHOP: &str = r#"
[[route]]
match = "/shop/"
to = "local"
"#;

const CENTRAL: &str = r#"
[central]
data = "data"

[peer]
address = "127.0.0.1:0"

[edges.fr]
peer = "http://127.0.0.1:1"
"#;

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn top_prints_one_frame_where_there_is_no_terminal() {
    let edge = edge::start(&(ALONE.to_owned() + SHOP));
    let admin = edge.door("admin").to_string();
    for _ in 0..3 {
        Client::plain(edge.address()).get("/shop/1");
    }
    for words in [&["top", "--once", "--admin", &admin][..], &["top", "--admin", &admin]] {
        let frame =
            wait::until("the requests to be counted", || process::run(words), |shown| out(shown).contains("/shop/"));
        assert!(frame.status.success());
        let frame = out(&frame);
        for part in ["fr of ", "ready", "since the start", "ROUTE", "CLUSTER", "local", "127.0.0.1:9"] {
            assert!(frame.contains(part), "{part} in\n{frame}");
        }
        assert!(!frame.contains('\x1b'), "{frame}");
    }
    let refused = process::run(&["top", "--admin", "127.0.0.1:1"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(err(&refused).contains("cannot be reached") && err(&refused).contains("help:"), "{}", err(&refused));
}

#[test]
fn top_gives_the_terminal_back() {
    let edge = edge::start(&(ALONE.to_owned() + SHOP));
    let admin = edge.door("admin").to_string();
    // `script` gives it a terminal of its own.
    let line = format!("echo pid $$; exec {} top --every 1 --admin {admin}", env!("CARGO_BIN_EXE_coordinator"));
    let mut top = Process::spawn(Command::new("script").args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()));
    let pid = top.line("pid ").trim().trim_start_matches("pid ").to_owned();
    top.line("\x1b[?1049h");
    top.line("CLUSTER");
    let signalled = Command::new("sh").arg("-c").arg(format!("kill -INT {pid}")).status().unwrap();
    assert!(signalled.success());
    assert_eq!(top.end(), Some(0));
    wait::until(
        "the terminal to be given back",
        || top.lines().join("\n"),
        |all| all.ends_with("\x1b[?25h\x1b[?1049l"),
    );
}

#[test]
fn homes_are_watched_across_a_cut() {
    let central = edge::start_central(CENTRAL);
    let door = central.door("central");
    let at = format!("http://{door}");
    let set = |key: &str, space: &str| {
        let done = process::run(&["homes", "set", key, "fr", "--space", space, "--central", &at]);
        assert!(done.status.success(), "{}", err(&done));
    };
    set("447", "user");
    let wire = Relay::to(door);
    let over = format!("http://{}", wire.address);
    let mut all = Process::start(&["homes", "watch", "--from", "1", "--central", &over]);
    let mut shops = Process::start(&["homes", "watch", "--from", "1", "--json", "--space", "shop", "--central", &at]);
    all.line("user:447 -> fr epoch 1 (");
    wire.cut();
    set("448", "user");
    set("7", "shop");
    all.line("going on with event");
    wire.mend();
    all.line("user:448 -> fr epoch 1 (");
    let seventh = shops.line(r#""key":"7""#);
    assert!(seventh.contains(r#""space":"shop""#) && seventh.contains(r#""home":"fr""#), "{seventh}");
    let printed = all.lines().iter().filter(|line| line.contains(" -> ")).count();
    wait::until("the third event", || all.lines(), |lines| lines.iter().any(|line| line.contains("shop:7")));
    assert!(printed <= 3, "no event is printed twice: {:#?}", all.lines());
    assert_eq!(shops.lines().len(), 1, "only its own space: {:#?}", shops.lines());
    // Not Ctrl-C's: where the tests run in the background, a shell has it ignored by all that they start.
    all.signal(Signal::Term);
    assert_eq!(all.end(), None, "a signal ends it");
}

#[test]
fn what_cannot_be_watched_is_told() {
    let central = edge::start_central(CENTRAL);
    let at = format!("http://{}", central.door("central"));
    let beyond = process::run(&["homes", "watch", "--from", "1000", "--central", &at]);
    assert_eq!(beyond.status.code(), Some(1));
    assert!(err(&beyond).contains("entries that this Central has not"), "{}", err(&beyond));
    let moved = process::run(&["homes", "move", "448", "fr", "--central", &at]);
    assert_eq!(moved.status.code(), Some(2));
    assert!(err(&moved).contains("moves are not built yet") && err(&moved).contains("`448`"), "{}", err(&moved));
}

#[test]
fn shells_complete_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = process::run(&["completions", shell]);
        assert!(script.status.success());
        for word in ["explain", "watch", "completions", "--config", "import"].map(|word| word.trim_start_matches('-')) {
            assert!(out(&script).contains(word), "{word} in {shell}");
        }
    }
    assert_eq!(process::run(&["completions", "sh"]).status.code(), Some(2));
}

#[test]
fn a_manual_page_is_printed() {
    let page = process::run(&["man", "homes", "watch"]);
    assert!(page.status.success());
    assert!(out(&page).contains(".TH") && out(&page).contains("\\-\\-from"), "{}", out(&page));
    let unknown = process::run(&["man", "hoems"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(err(&unknown).contains("the commands are run"), "{}", err(&unknown));
}
