//! One's own application behind the demo's edges: by which routes, where it listens, and what to try there.
//!
//! Owns the words of `--routes` and `--origin` and what is printed instead of the tour. What the routes mean is
//! `config`'s, as everywhere: they are included by the demo's edges as an operator would do it.

use super::origin::CENTRAL;
use super::world::{EDGES, EdgeDoors};
use crate::config;
use crate::config::plan::{Plan, RouteSettings, Url, UrlScheme};
use crate::proxy::explain::written;
use crate::route::{Action, Rule};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};

/// Routes that are shown with a command each; a table of thousands is the file itself.
const SHOWN_MAX: usize = 20;

/// How long an origin may take to accept a connection at the start.
const CONNECT: Duration = Duration::from_secs(1);

/// What stands behind the demo's edges.
#[derive(Debug, Clone)]
pub struct Own {
    /// The file with the routes, as it was named.
    pub named: PathBuf,
    /// The same from the root, for includes.
    pub routes: PathBuf,
    /// The origin of each place, in the order of [`places`].
    origins: Vec<Url>,
}

/// The places that have an origin.
fn places() -> impl Iterator<Item = &'static str> {
    EDGES.into_iter().chain([CENTRAL])
}

impl Own {
    /// Takes `--routes FILE` and every `--origin [PLACE=]URL`. Errors: what is wrong with them, and how to mend it.
    pub fn read(routes: &Path, origins: &[String]) -> Result<Own, String> {
        let whole = routes.canonicalize().map_err(|error| format!("--routes: {}: {error}", routes.display()))?;
        let mut given: Vec<(Option<&str>, Url)> = Vec::new();
        for text in origins {
            let (place, url) = origin(text).map_err(|why| format!("--origin: {why}"))?;
            if given.iter().any(|(known, _)| *known == place) {
                let whose = place.unwrap_or("all places that are not named");
                return Err(format!("--origin: the origin of {whose} stands twice; give each place one"));
            }
            given.push((place, url));
        }
        let of = |place: Option<&str>| given.iter().find(|(known, _)| *known == place).map(|(_, url)| url.clone());
        let (mut all, mut missing) = (Vec::new(), Vec::new());
        for place in places() {
            match of(Some(place)).or_else(|| of(None)) {
                Some(url) => all.push(url),
                None => missing.push(place),
            }
        }
        match missing.first() {
            Some(first) => Err(format!(
                "no origin for {}: add --origin {first}=URL, or --origin URL for all that are not named",
                missing.join(", ")
            )),
            None => Ok(Own { named: routes.to_owned(), routes: whole, origins: all }),
        }
    }

    /// The origin of each place.
    pub fn origins(&self) -> impl Iterator<Item = (&'static str, &Url)> {
        places().zip(&self.origins)
    }

    /// What may be in the file with the routes, for whom something in it is wrong.
    pub fn help(&self) -> String {
        format!(
            "help: the demo's edges ({}) have doors, origins, Central and edge table of their own and include {}:\n      \
             it holds [[route]] and [homes.*], and may hold [clusters.*], [limits], [timeouts], [retry] and [compress]\n",
            EDGES.join(", "),
            self.named.display()
        )
    }

    /// The origins that take no connection now, each with whose it is and why.
    pub async fn silent(&self) -> Vec<String> {
        let mut all: Vec<(&Url, Vec<&str>)> = Vec::new();
        for (place, url) in self.origins() {
            match all.iter_mut().find(|(known, _)| *known == url) {
                Some((_, whose)) => whose.push(place),
                None => all.push((url, vec![place])),
            }
        }
        let mut silent = Vec::new();
        for (url, whose) in all {
            if let Err(why) = connects(url).await {
                silent.push(format!("{url}, the origin of {}, does not answer: {why}", whose.join(", ")));
            }
        }
        silent
    }
}

/// Reads `http://127.0.0.1:3000`, or `fr=http://127.0.0.1:3001` for one place.
fn origin(text: &str) -> Result<(Option<&'static str>, Url), String> {
    let scheme = text.find("://").unwrap_or(text.len());
    let (place, url) = match text.find('=').filter(|at| *at < scheme) {
        Some(at) => {
            let place = places().find(|known| *known == &text[..at]).ok_or_else(|| {
                let known: Vec<&str> = places().collect();
                format!("`{}` is no place of the demo; there are {}", &text[..at], known.join(", "))
            })?;
            (Some(place), &text[at + 1..])
        }
        None => (None, text),
    };
    Ok((place, config::origin_url(url)?))
}

async fn connects(url: &Url) -> io::Result<()> {
    let connect = async {
        match url.scheme {
            UrlScheme::Unix => UnixStream::connect(&url.host).await.map(drop),
            _ => TcpStream::connect((url.host.as_str(), url.port)).await.map(drop),
        }
    };
    tokio::time::timeout(CONNECT, connect).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// A route, with a command that reaches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Try {
    /// What the route does, in words.
    shows: String,
    /// Options of curl.
    options: String,
    /// Path with a leading slash; names of captures in capitals.
    path: String,
}

impl Try {
    /// As it is printed, for the edge that is to be asked.
    pub fn at(&self, edge: &EdgeDoors) -> String {
        format!("  # {}\n  curl -i {}http://{}{}\n", self.shows, self.options, edge.http, self.path)
    }
}

/// What to try with a plan's routes: the first twenty of them, and how many are left.
pub fn tries(plan: &Plan) -> (Vec<Try>, usize) {
    let rules = plan.routes.rules();
    let shown = rules.iter().take(SHOWN_MAX).map(|rule| attempt(plan, rule, &plan.settings[rule.id.index()]));
    (shown.collect(), rules.len().saturating_sub(SHOWN_MAX))
}

fn attempt(plan: &Plan, rule: &Rule, settings: &RouteSettings) -> Try {
    let text = &rule.pattern.text;
    let target = text.split_once(' ').map_or(text.as_str(), |(_, target)| target).trim_start();
    let (host, path) = target.split_at(target.find('/').unwrap_or(target.len()));
    let method = rule.pattern.method().map_or("GET", crate::message::Method::as_str);
    let mut options = match method {
        "GET" => String::new(),
        "HEAD" => "-I ".to_owned(),
        "POST" | "PUT" | "PATCH" => format!("-X {method} -H 'Content-Type: application/json' -d '{{}}' "),
        other => format!("-X {other} "),
    };
    if !host.is_empty() {
        options += &format!("-H 'Host: {}' ", example(&host.replacen("*.", "www.", 1)));
    }
    if let Some(when) = &rule.when {
        options += &format!("-H '{}: {}' ", when.name, when.value.replace('\'', r"'\''"));
    }
    // The node itself is matched too, and is what most applications answer for.
    let path = if path.len() > 1 { path.strip_suffix('/').unwrap_or(path) } else { path };
    Try { shows: format!("{text}: {}", does(plan, rule, settings)), options, path: example(path) }
}

/// A pattern's text with its names in capitals, for people to fill in.
fn example(pattern: &str) -> String {
    let mut out = String::new();
    for (at, part) in pattern.split(['{', '}']).enumerate() {
        match at % 2 {
            0 => out += part,
            _ => out += &part.trim_end_matches('.').trim_matches('$').to_uppercase(),
        }
    }
    out
}

fn does(plan: &Plan, rule: &Rule, settings: &RouteSettings) -> impl fmt::Display {
    let Action::To(places) = &rule.action else {
        return settings.reply.as_ref().map_or_else(String::new, |reply| format!("a reply, {}", reply.status));
    };
    let places: Vec<String> = places.iter().map(|place| written(plan, place)).collect();
    let mut text = places.join(", then ");
    if !settings.next_on.is_empty() {
        let on: Vec<String> = settings.next_on.iter().map(u16::to_string).collect();
        text += &format!(" (next on {})", on.join(", "));
    }
    if let Some(claim) = &settings.claim {
        text += &format!("; its answer makes this edge the home of a new {}", plan.spaces[claim.space.index()].name);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::{self, Kind, Strictness};

    fn read(origins: &[&str]) -> Result<Vec<String>, String> {
        let origins: Vec<String> = origins.iter().map(|&text| text.to_owned()).collect();
        let own = Own::read(Path::new("examples/shop/routes.toml"), &origins)?;
        Ok(own.origins().map(|(place, url)| format!("{place}={url}")).collect())
    }

    #[test]
    fn each_place_gets_its_origin_or_the_one_of_all_others() {
        let all = ["fr=http://[::1]:1", "us=http://[::1]:1", "jp=http://[::1]:1", "central=http://[::1]:1"];
        assert_eq!(read(&["http://[::1]:1"]).unwrap(), all);
        assert_eq!(read(&all).unwrap(), all);
        let mixed = read(&["http://localhost:3000", "jp=unix:/run/a=b.sock"]).unwrap();
        assert_eq!(mixed[2..], ["jp=unix:/run/a=b.sock", "central=http://localhost:3000"]);
    }

    #[test]
    fn wrong_origins_are_refused_with_a_remedy() {
        for (origins, says) in [
            (vec![], "no origin for fr, us, jp, central: add --origin fr=URL, or --origin URL"),
            (vec!["fr=http://h", "central=http://h"], "no origin for us, jp"),
            (vec!["mars=http://h"], "`mars` is no place of the demo; there are fr, us, jp, central"),
            (vec!["http://h", "http://i"], "the origin of all places that are not named stands twice"),
            (vec!["http://h", "fr=http://i", "fr=http://j"], "the origin of fr stands twice"),
            (vec!["localhost:3000"], "write it in full, such as \"http://localhost:3000\""),
            (vec!["http://h/app"], "an origin has no path"),
            (vec!["fr="], "`` is not a URL"),
        ] {
            let why = read(&origins).unwrap_err();
            assert!(why.contains(says), "{origins:?}: {why}");
        }
        let why = Own::read(Path::new("no such file"), &["http://h".to_owned()]).unwrap_err();
        assert!(why.contains("no such file: No such file"), "{why}");
    }

    #[test]
    fn commands_fit_the_routes() {
        let text = "[edge]\nname = \"fr\"\ndata = \"/d\"\n[[listen]]\naddress = \"127.0.0.1:1\"\n\
            [local]\norigins = [\"http://127.0.0.1:2\"]\n[central]\nurl = [\"http://127.0.0.1:3\"]\n\
            [homes.user]\nclaim = \"registration\"\n[[route]]\nmatch = \"/\"\nto = \"local\"\n\
            [[route]]\nmatch = \"GET /i/{id}.json\"\nto = [\"local\", \"central\"]\nnext_on = [404]\n\
            [[route]]\nmatch = \"POST *.example.com/{a}/{rest...}\"\nto = \"central\"\n\
            [[route]]\nmatch = \"DELETE /x/{$}\"\nto = \"central\"\nwhen = { header = \"X-A: b\" }\n\
            [[route]]\nmatch = \"/u/{user}/\"\nto = \"home:user\"\n\
            [[route]]\nmatch = \"/old\"\nreply = { status = 410 }\n";
        let outcome = load::from_text(Kind::Edge, "t", text, &|_| None, Strictness::Run);
        let shown = outcome.render(false);
        let (tries, left) = tries(&outcome.plan.expect(&shown));
        assert_eq!(left, 0);
        let lines: Vec<String> =
            tries.iter().map(|one| format!("{} | {}{}", one.shows, one.options, one.path)).collect();
        let json = "-H 'Content-Type: application/json' -d '{}' ";
        assert_eq!(
            lines,
            [
                "/: local | /".to_owned(),
                "GET /i/{id}.json: local, then central (next on 404) | /i/ID.json".to_owned(),
                format!(
                    "POST *.example.com/{{a}}/{{rest...}}: central | -X POST {json}-H 'Host: www.example.com' /A/REST"
                ),
                "DELETE /x/{$}: central | -X DELETE -H 'x-a: b' /x/".to_owned(),
                "/u/{user}/: home:user | /u/USER".to_owned(),
                "/old: a reply, 410 | /old".to_owned(),
            ]
        );
    }
}
