//! The page in a real browser: headless Chromium, driven by its DevTools protocol, on a running demo.
//!
//! `SCREENSHOTS=FOLDER` keeps pictures of the page at several widths, light and dark, to look at.

use crate::harness::client::Client;
use crate::harness::folder::{self, Folder};
use crate::harness::process::Process;
use crate::harness::{wait, ws};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Starting a browser, or a demo, on a machine that runs other tests.
const START: Duration = Duration::from_secs(90);

/// A headless Chromium with one tab.
struct Browser {
    child: Child,
    _profile: Folder,
    socket: ws::WebSocket,
    calls: u64,
}

impl Browser {
    fn start() -> Browser {
        let profile = folder::new();
        let child = Command::new("chromium")
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromium is installed: `apt-get install chromium`, as `.ci/run external` does");
        let port = || std::fs::read_to_string(profile.join("DevToolsActivePort")).unwrap_or_default();
        let told = wait::within(START, "the browser's door", port, |told| told.contains('\n'));
        let port = told.lines().next().and_then(|line| line.parse::<u16>().ok()).expect("a port");
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        let host = at.to_string();
        let tabs = || Client::plain(at).ask("GET", "/json/list", &[("Host", &host)], b"").json();
        let tab = |tabs: &Value| {
            let all = tabs.as_array()?;
            let page = all.iter().find(|tab| tab["type"] == "page")?;
            page["webSocketDebuggerUrl"].as_str().map(str::to_owned)
        };
        let url = tab(&wait::within(START, "a tab", tabs, |tabs| tab(tabs).is_some())).expect("just seen");
        let target = url.split_once(&host).expect("its own address").1.to_owned();
        let socket = ws::WebSocket::open_at(Client::plain(at), &host, &target);
        let mut browser = Browser { child, _profile: profile, socket, calls: 0 };
        browser.call("Log.enable", json!({}));
        browser
    }

    /// A command of the protocol, and its result. Fails on what the page complains of.
    fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let call = json!({ "id": self.calls, "method": method, "params": params }).to_string();
        self.socket.send(ws::TEXT, call.as_bytes());
        loop {
            let said: Value = serde_json::from_slice(&self.socket.frame().payload).expect("JSON");
            if said["method"] == "Log.entryAdded" && said["params"]["entry"]["level"] == "error" {
                panic!("the page complains: {said:#}");
            }
            if said["id"] == self.calls {
                assert!(said["error"].is_null(), "{method}: {said:#}");
                return said["result"].clone();
            }
        }
    }

    /// What an expression gives in the page.
    fn eval(&mut self, expression: &str) -> Value {
        let result = self
            .call("Runtime.evaluate", json!({ "expression": expression, "awaitPromise": true, "returnByValue": true }));
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result:#}");
        result["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    #[track_caller]
    fn until(&mut self, expression: &str) {
        wait::within(START, expression, || self.eval(expression), |value| *value == true);
    }

    fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url }));
        self.until(&format!("location.href === '{url}' && document.documentElement?.dataset.looked === 'yes'"));
    }

    /// Shows the page at a width, in a scheme.
    fn look(&mut self, width: u32, scheme: &str) {
        self.call(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false }),
        );
        self.call(
            "Emulation.setEmulatedMedia",
            json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] }),
        );
    }

    fn picture(&mut self, name: &str) {
        let Some(folder) = std::env::var_os("SCREENSHOTS") else { return };
        let taken = self.call("Page.captureScreenshot", json!({ "captureBeyondViewport": true }));
        std::fs::write(std::path::Path::new(&folder).join(name), taken["data"].as_str().expect("a picture"))
            .expect("it is written");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Killed rather than asked: its profile goes anyway.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running demo and the URLs of its pages: Central's first.
fn demo(temporary: &Folder) -> (Process, Vec<String>) {
    let mut demo = Process::start_with_temporary(temporary.path(), &["demo", "--port", "21800"]);
    let look = || (demo.lines(), demo.is_over());
    let (lines, _) = wait::within(START, "the introduction", look, |(lines, over)| {
        *over || lines.iter().any(|line| line.starts_with("Ctrl-C"))
    });
    let pages = lines.iter().filter_map(|line| line.split_whitespace().nth(1).filter(|url| url.ends_with('/')));
    let pages: Vec<_> = pages.filter(|url| url.starts_with("http://")).map(str::to_owned).collect();
    assert_eq!(pages.len(), 4, "{lines:#?}");
    (demo, pages)
}

#[test]
fn the_page_shows_explains_and_cuts() {
    let temporary = folder::new();
    let (_demo, pages) = demo(&temporary);
    let mut browser = Browser::start();
    browser.open(&pages[1]);
    assert_eq!(browser.eval("document.title"), "fr – Coordinator");
    browser.until("[...document.querySelectorAll('#places tbody th')].map((cell) => cell.textContent).join() === 'own origins,central,jp,us'");
    browser.until("document.querySelectorAll('#recent tbody tr').length > 3");
    browser.until("document.querySelectorAll('#map text.small').length >= 3");

    // The form, as a person fills it in.
    browser.eval("document.getElementById('url').focus()");
    browser.call("Input.insertText", json!({ "text": "/v1/users/449/wishlist.json" }));
    for kind in ["keyDown", "keyUp"] {
        browser.call(
            "Input.dispatchKeyEvent",
            json!({ "type": kind, "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r" }),
        );
    }
    browser.until("document.getElementById('explanation').textContent.includes('decision: remote us')");

    // A cut, by keyboard: the focus stays on the button's successor, and the end of the link is said.
    browser.eval("document.querySelector('button[data-place=us][data-do=cut]').focus()");
    for kind in ["keyDown", "keyUp"] {
        browser.call(
            "Input.dispatchKeyEvent",
            json!({ "type": kind, "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r" }),
        );
    }
    browser.until("document.querySelector('#places').textContent.includes('cut on purpose')");
    browser.until("document.getElementById('news').textContent.includes('us: cut on purpose')");
    assert_eq!(browser.eval("document.activeElement.dataset.place + document.activeElement.dataset.do"), "usmend");
    pictures(&mut browser, "fr-cut");
    browser.eval("document.activeElement.click()");
    browser.until("!document.querySelector('#places').textContent.includes('cut on purpose')");
}

#[test]
fn the_page_fits_and_says_what_it_shows() {
    let temporary = folder::new();
    let (_demo, pages) = demo(&temporary);
    let mut browser = Browser::start();
    for (url, name) in [(&pages[1], "fr"), (&pages[0], "central")] {
        browser.open(url);
        browser.until("document.querySelectorAll('#recent tbody tr').length > 2");
        for width in [360, 800, 1400] {
            for scheme in ["light", "dark"] {
                browser.look(width, scheme);
                let wide = browser.eval("document.documentElement.scrollWidth");
                assert!(wide.as_u64().is_some_and(|wide| wide <= u64::from(width)), "{name} at {width}: {wide} wide");
            }
        }
        // What a screen reader needs: a name for each control and region, and a language.
        let nameless = "[...document.querySelectorAll('button, input, select')].filter((one) => \
                        !(one.getAttribute('aria-label') || one.labels?.length || one.textContent.trim())).length";
        assert_eq!(browser.eval(nameless), 0);
        assert_eq!(browser.eval("document.querySelectorAll('main, header, footer, h1').length"), 4);
        assert_eq!(browser.eval("document.documentElement.lang"), "en");
        pictures(&mut browser, name);
    }
    // Central stops, and says so.
    browser.eval("document.querySelector('#own button').click()");
    browser.until("document.getElementById('own').textContent.includes('Central is stopped on purpose')");
}

fn pictures(browser: &mut Browser, name: &str) {
    for (width, scheme) in
        [(360, "light"), (360, "dark"), (800, "light"), (800, "dark"), (1400, "light"), (1400, "dark")]
    {
        browser.look(width, scheme);
        browser.picture(&format!("{name}-{width}-{scheme}.base64"));
    }
}
