//! Which rule wins, as tables, and against trying every rule.

use super::*;
use crate::base::id::RouteId;
use crate::route::pattern::Pattern;

fn rule(index: usize, text: &str) -> Rule {
    let (text, when) = match text.split_once(" if ") {
        Some((text, when)) => (text, when.split_once(": ")),
        None => (text, None),
    };
    let when = when.map(|(name, value)| When { name: name.to_owned(), value: value.to_owned() });
    let pattern = Pattern::parse(text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
    let edge = pattern.names().contains(&"edge");
    let place = if edge { Place::EdgeNamed("edge".to_owned()) } else { Place::Local };
    Rule { id: RouteId(index as u16), pattern, when, action: Action::To(vec![place]), key: None }
}

fn build(patterns: &[&str]) -> Result<Table, Vec<Conflict>> {
    Table::build(patterns.iter().enumerate().map(|(index, text)| rule(index, text)).collect())
}

/// Asks with `METHOD host/path[ if name: value]`; answers with the pattern and what its names took, or the miss.
fn ask(table: &Table, line: &str) -> String {
    let (line, fields) = line.split_once(" if ").unwrap_or((line, ""));
    let fields: Fields = fields.split("; ").filter_map(|field| field.split_once(": ")).collect();
    let (method, target) = line.split_once(' ').unwrap();
    let (host, path) = target.split_at(target.find('/').unwrap());
    let method = Method::parse(method.as_bytes()).unwrap();
    match table.find(Query { method: &method, host, path, fields: &fields }, &|name| matches!(name, "fr" | "de")) {
        Ok(matched) => {
            let mut answer = matched.rule.pattern.text.clone();
            for (name, value) in matched.captures() {
                answer += &format!(" {name}={value}");
            }
            answer
        }
        Err(Miss::NoRoute) => "404".to_owned(),
        Err(Miss::NoMethod(allow)) => {
            format!("405 {}", allow.iter().map(Method::as_str).collect::<Vec<_>>().join(","))
        }
    }
}

#[test]
fn an_asterisk_is_no_path() {
    let fields = Fields::new();
    let query = Query { method: &Method::Options, host: "h", path: "*", fields: &fields };
    let found = |pattern| build(&[pattern]).unwrap().find(query, &|_| false).is_ok();
    assert_eq!(["/", "/{rest...}", "/{$}", "/{name}"].map(found), [true, false, false, false]);
}

#[test]
fn the_sample_of_the_manual() {
    let table = build(&[
        "GET /v1/items/{id}.json",
        "/v1/items/",
        "POST /v1/users",
        "/v1/users/{user}/",
        "GET /v1/items/{id}_{edge}.json",
        "POST /v1/events",
        "/old/",
    ])
    .unwrap();
    let rows = [
        ("GET /v1/items/847.json", "GET /v1/items/{id}.json id=847"),
        ("HEAD /v1/items/847.json", "GET /v1/items/{id}.json id=847"),
        ("POST /v1/items/847.json", "/v1/items/"),
        ("GET /v1/items/847", "/v1/items/"),
        ("GET /v1/items", "/v1/items/"),
        ("GET /v1/items/", "/v1/items/"),
        ("GET /v1/itemsx", "404"),
        ("GET /v1/items/.json", "/v1/items/"),
        ("GET /v1/items/8_de.json", "GET /v1/items/{id}_{edge}.json id=8 edge=de"),
        ("GET /v1/items/8_4_de.json", "GET /v1/items/{id}_{edge}.json id=8_4 edge=de"),
        ("GET /v1/items/8_xx.json", "GET /v1/items/{id}.json id=8_xx"),
        ("GET /v1/items/_de.json", "GET /v1/items/{id}.json id=_de"),
        ("GET /v1/users", "405 POST"),
        ("POST /v1/users", "POST /v1/users"),
        ("POST /v1/users/", "404"),
        ("PUT /v1/users/448", "/v1/users/{user}/ user=448"),
        ("PUT /v1/users/448/", "/v1/users/{user}/ user=448"),
        ("PUT /v1/users/448/a/b.json", "/v1/users/{user}/ user=448"),
        ("GET /v1/events", "405 POST"),
        ("GET /old", "/old/"),
        ("GET /", "404"),
        ("OPTIONS *", "404"),
    ];
    for (asked, answer) in rows {
        let asked = asked.replace(" *", " /*");
        assert_eq!(ask(&table, &asked), answer, "{asked}");
    }
}

fn check(patterns: &[&str], rows: &[(&str, &str)]) {
    // Order in the file means nothing.
    for turn in 0..patterns.len().max(1) {
        let mut turned = patterns.to_vec();
        turned.rotate_left(turn);
        let table = build(&turned).unwrap_or_else(|conflicts| panic!("{patterns:?}: {conflicts:?}"));
        for (asked, answer) in rows {
            assert_eq!(ask(&table, asked), *answer, "{asked} of {turned:?}");
        }
    }
}

#[test]
fn the_cases_of_go() {
    check(
        &["/", "/{$}", "/static/", "/posts/{id}", "/posts/latest", "/b/{bucket}/o/{object...}", "GET /posts/{id}/edit"],
        &[
            ("GET /", "/{$}"),
            ("GET /x", "/"),
            ("GET /static", "/static/"),
            ("GET /static/", "/static/"),
            ("GET /static/a/b", "/static/"),
            ("GET /posts/1", "/posts/{id} id=1"),
            ("GET /posts/latest", "/posts/latest"),
            ("GET /posts/", "/"),
            ("GET /posts/1/", "/"),
            ("GET /b/k/o/x/y", "/b/{bucket}/o/{object...} bucket=k object=x/y"),
            ("GET /b/k/o/", "/b/{bucket}/o/{object...} bucket=k object="),
            ("GET /b/k/o", "/"),
            ("HEAD /posts/1/edit", "GET /posts/{id}/edit id=1"),
            ("POST /posts/1/edit", "/"),
        ],
    );
    check(
        &["GET /a", "HEAD /a", "POST /a", "example.com/", "GET example.com/a", "/c/"],
        &[
            ("GET /a", "GET /a"),
            ("HEAD /a", "HEAD /a"),
            ("POST /a", "POST /a"),
            ("PUT /a", "405 GET,HEAD,POST"),
            ("CONNECT /a", "GET /a"),
            ("GET example.com/a", "GET example.com/a"),
            // A narrower host wins outright.
            ("POST example.com/a", "example.com/"),
            ("GET example.com/c/d", "example.com/"),
            ("GET other.com/c/d", "/c/"),
            ("GET /d", "404"),
        ],
    );
}

#[test]
fn segments_from_literal_to_name() {
    check(
        &["/i/{x}", "/i/{x}.json", "/i/{x}_{y}.json", "/i/a.json", "/i/{x}/s"],
        &[
            ("GET /i/a.json", "/i/a.json"),
            ("GET /i/b.json", "/i/{x}.json x=b"),
            ("GET /i/b_c.json", "/i/{x}_{y}.json x=b y=c"),
            ("GET /i/b", "/i/{x} x=b"),
            ("GET /i/b/s", "/i/{x}/s x=b"),
            ("GET /i/a.json/s", "/i/{x}/s x=a.json"),
            ("GET /i/", "404"),
        ],
    );
    // A dead end below a literal is left again.
    check(
        &["/a/b/c", "/{x}/b/d", "/a/{x}/e", "/{x}/{y}/{z}/"],
        &[
            ("GET /a/b/c", "/a/b/c"),
            ("GET /a/b/d", "/{x}/b/d x=a"),
            ("GET /a/b/e", "/a/{x}/e x=b"),
            ("GET /a/b/f", "/{x}/{y}/{z}/ x=a y=b z=f"),
            ("GET /a/b/c/d", "/{x}/{y}/{z}/ x=a y=b z=c"),
        ],
    );
    check(
        &["/f/", "/f/{p...}", "/f/{$}", "/f/{x}", "/f/{x}/"],
        &[
            ("GET /f", "/f/"),
            ("GET /f/", "/f/{$}"),
            ("GET /f/a", "/f/{x} x=a"),
            ("GET /f/a/", "/f/{x}/ x=a"),
            ("GET /f/a/b", "/f/{x}/ x=a"),
        ],
    );
}

#[test]
fn hosts_conditions_and_edges() {
    check(
        &["/", "*.example/", "{t}.example/", "www.example/", "{t}.eu.example/a", "www.example/a/"],
        &[
            ("GET /x", "/"),
            ("GET example/x", "/"),
            ("GET www.example/x", "www.example/"),
            ("GET www.example/a/b", "www.example/a/"),
            ("GET acme.example/x", "{t}.example/ t=acme"),
            ("GET a.b.example/x", "*.example/"),
            ("GET acme.eu.example/a", "{t}.eu.example/a t=acme"),
            ("GET acme.eu.example/b", "*.example/"),
        ],
    );
    check(
        &["/a", "/a if x-beta: 1", "GET /a if x-beta: 1", "/b if x-v: 1", "/b if x-v: 2", "POST /c if x-v: 1"],
        &[
            ("GET /a", "/a"),
            ("GET /a if X-Beta: 1", "GET /a"),
            ("PUT /a if x-beta: 1", "/a"),
            ("GET /a if x-beta: 2", "/a"),
            ("GET /b if x-v: 1", "/b"),
            ("GET /b if x-v: 2", "/b"),
            ("GET /b", "404"),
            ("GET /b if x-v: 1; x-v: 2", "404"),
            ("GET /b if x-v: 1; x-v: 1", "404"),
            ("GET /c", "404"),
            ("POST /c", "404"),
            ("GET /c if x-v: 1", "405 POST"),
        ],
    );
    check(
        &["/{edge}/x", "/{a}/{b}", "GET {edge}.example/", "/{a}/", "PUT /e/{x}/{edge}"],
        &[
            ("GET /fr/x", "/{edge}/x edge=fr"),
            ("GET /us/x", "/{a}/{b} a=us b=x"),
            ("GET de.example/a/b", "GET {edge}.example/ edge=de"),
            ("GET us.example/a/b", "/{a}/{b} a=a b=b"),
            ("PUT /e/1/fr", "PUT /e/{x}/{edge} x=1 edge=fr"),
            ("PUT /e/1/us", "/{a}/ a=e"),
        ],
    );
    // What names no edge allows no method either.
    check(&["PUT /e/{edge}"], &[("GET /e/us", "404"), ("GET /e/fr", "405 PUT")]);
    check(&[], &[("GET /", "404")]);
}

#[test]
fn overlaps_are_refused_and_explained() {
    let rows = [
        (["/a", "/a"], Some("GET /a")),
        (["/{x}", "/{y}"], Some("GET /a")),
        (["/a/", "/a/"], Some("GET /a")),
        (["/", "/{x...}"], Some("GET /")),
        (["/f/", "/f/{x...}"], None),
        (["/f/{$}", "/f/{x...}"], None),
        (["/a", "/%61"], Some("GET /a")),
        (["/a/", "/{x}"], Some("GET /a")),
        (["/a/{rest...}", "/{x}"], None),
        (["/posts/{id}", "/{kind}/latest"], Some("GET /posts/latest")),
        (["/a/{x}/b", "/a/b/{y}"], Some("GET /a/b/b")),
        (["/a/{x}", "/{y}/"], None),
        (["/a/", "/{x}/b"], Some("GET /a/b")),
        (["/a/{x}/", "/{y}/b"], Some("GET /a/b")),
        (["/a/", "/a/{$}"], None),
        (["/a/{x...}", "/{y}/b/{z}"], Some("GET /a/b/a")),
        (["GET /", "/a"], Some("GET /a")),
        (["GET /a", "/a"], None),
        (["GET /{x}", "POST /a"], None),
        (["HEAD /{x}", "GET /a"], Some("HEAD /a")),
        (["GET /a/", "/a/b"], Some("GET /a/b")),
        (["GET /{x}.json", "GET /a{y}"], Some("GET /a.json")),
        (["/{x}.json", "/{y}_{z}"], Some("GET /a_.json")),
        (["/{x}.json", "/{y}.html"], None),
        (["/{x}.json", "/{y}.json"], Some("GET /a.json")),
        (["/v{x}", "/{y}.{z}"], Some("GET /v.a")),
        (["/v{x}.{y}", "/{z}.{w}"], None),
        (["a.example/", "/b"], None),
        (["a.example/", "b.example/"], None),
        (["{x}.example/", "*.example/"], None),
        (["{x}.b/", "a.{y}/"], Some("GET a.b/")),
        (["{x}.b/c", "a.{y}/d"], None),
        (["A.example/", "a.example/"], Some("GET a.example/")),
        (["/a if x: 1", "/a"], None),
        (["/a if x: 1", "/a if x: 1"], Some("GET /a with x: 1")),
        (["/a if x: 1", "/a if y: 1"], Some("GET /a with x: 1 and y: 1")),
        (["/a if x: 1", "/a if x: 2"], None),
        (["/ if x: 1", "/a"], Some("GET /a with x: 1")),
        (["GET /a", "/a if x: 1"], Some("GET /a with x: 1")),
    ];
    for (pair, example) in rows {
        let conflicts = build(&pair).err().unwrap_or_default();
        let turned = build(&[pair[1], pair[0]]).err().unwrap_or_default();
        assert_eq!(conflicts.len(), usize::from(example.is_some()), "{pair:?}: {conflicts:?}");
        assert_eq!(turned.len(), conflicts.len(), "{pair:?}: {turned:?}");
        for conflict in conflicts {
            assert_eq!(conflict.pair, (0, 1));
            let named = pair.map(|text| format!("`{}`", text.split(" if ").next().unwrap()));
            let both = format!("{} and {} both match `{}`, and ", named[0], named[1], example.unwrap());
            assert!(conflict.why.starts_with(&both), "{pair:?}: {}", conflict.why);
        }
    }
}

#[test]
fn a_tie_at_a_node_itself_says_how_to_leave_it_out() {
    let why = build(&["/a/", "/{x}"]).unwrap_err().remove(0).why;
    assert!(why.ends_with("neither is more specific; `/a/{rest...}` leaves out `/a` itself"), "{why}");
    let why = build(&["GET /{x}", "GET a.example/", "GET /b/c/"]).map(|_| ());
    assert_eq!(why, Ok(()));
}

#[test]
fn conflicts_are_all_reported_up_to_a_bound() {
    let conflicts = build(&["/a", "/b", "/{x}", "/{y}", "/b"]).unwrap_err();
    assert_eq!(conflicts.iter().map(|conflict| conflict.pair).collect::<Vec<_>>(), [(1, 4), (2, 3)]);
    let same = vec!["/a"; 200];
    assert_eq!(build(&same).unwrap_err().len(), CONFLICTS_MAX);
}

/// Ten thousand routes as a large system has them: only those that could meet are compared, and a conflict among them is
/// told as ever.
#[test]
fn a_large_table_is_not_compared_pair_by_pair() {
    let resource = |n: usize| {
        [
            format!("GET /r{n}/{{id}}.json"),
            format!("/r{n}/"),
            format!("h{n}.example.com/"),
            format!("GET /r{n}/x/{{rest...}}"),
        ]
    };
    let mut patterns: Vec<String> = (0..2_500).flat_map(resource).collect();
    patterns.push("/".to_owned());
    let rules = |patterns: &[String]| patterns.iter().enumerate().map(|(n, text)| rule(n, text)).collect::<Vec<_>>();
    let count = pairs(&rules(&patterns)).count();
    assert!((2_000..60_000).contains(&count), "{count} of fifty million");
    assert_eq!(Table::build(rules(&patterns)).unwrap().rules().len(), patterns.len());
    patterns.push("GET /r1700/{name}.json".to_owned());
    let conflicts = Table::build(rules(&patterns)).unwrap_err();
    assert_eq!(conflicts.iter().map(|conflict| conflict.pair).collect::<Vec<_>>(), [(4 * 1_700, 10_001)]);
}

mod oracle {
    use super::*;
    use proptest::prelude::*;

    fn segment() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => "[ab]".prop_map(|text| text),
            2 => Just("{N}".to_owned()),
            1 => Just("{N}a".to_owned()),
            1 => Just("a{N}".to_owned()),
            1 => Just("{N}a{N}".to_owned()),
            1 => Just("b{N}a".to_owned()),
            1 => Just("{edge}".to_owned()),
        ]
    }

    fn pattern() -> impl Strategy<Value = String> {
        let method = prop_oneof![4 => Just(""), 2 => Just("GET "), 1 => Just("HEAD "), 1 => Just("POST ")];
        let host =
            prop_oneof![5 => Just(""), 1 => Just("a.c"), 1 => Just("{N}.c"), 1 => Just("*.c"), 1 => Just("b.a.c")];
        let tail = prop_oneof![3 => Just(""), 2 => Just("/"), 1 => Just("/{$}"), 1 => Just("/{N...}")];
        let when = prop_oneof![6 => Just(""), 1 => Just(" if x: 1"), 1 => Just(" if x: 2"), 1 => Just(" if y: 1")];
        let path = prop::collection::vec(segment(), 0..4);
        (method, host, path, tail, when).prop_map(|(method, host, path, tail, when)| {
            let path: String = path.iter().map(|segment| format!("/{segment}")).collect();
            let path = if path.is_empty() && tail.is_empty() { "/".to_owned() } else { path };
            let mut names = 0;
            let mut numbered = String::new();
            let mut edges = 0;
            for part in format!("{method}{host}{path}{tail}{when}").split_inclusive('{') {
                let own = part.strip_prefix('N').map(|rest| {
                    names += 1;
                    format!("n{names}{rest}")
                });
                // One name cannot stand twice: later edges are plain names.
                let edge = part.strip_prefix("edge").filter(|_| {
                    edges += 1;
                    edges > 1
                });
                numbered += &own.or(edge.map(|rest| format!("e{edges}{rest}"))).unwrap_or_else(|| part.to_owned());
            }
            numbered
        })
    }

    fn request() -> impl Strategy<Value = String> {
        let method = prop_oneof![Just("GET"), Just("HEAD"), Just("POST"), Just("PUT")];
        let host = prop_oneof![3 => Just(""), 1 => Just("a.c"), 1 => Just("b.c"), 1 => Just("b.a.c"), 1 => Just("c")];
        let when =
            prop_oneof![3 => Just(""), 1 => Just(" if x: 1"), 1 => Just(" if y: 1; x: 2"), 1 => Just(" if x: 1; x: 2")];
        let segment = prop_oneof!["[ab]{1,3}", Just("fr".to_owned())];
        (method, host, prop::collection::vec(segment, 0..5), any::<bool>(), when).prop_map(
            |(method, host, path, slash, when)| {
                let slash = if slash || path.is_empty() { "/" } else { "" };
                let path: String = path.iter().map(|segment| format!("/{segment}")).collect();
                format!("{method} {host}{path}{slash}{when}")
            },
        )
    }

    /// Takes out one rule of each conflicting pair until none is left.
    fn without_conflicts(mut patterns: Vec<String>) -> (Vec<String>, Table) {
        loop {
            match build(&patterns.iter().map(String::as_str).collect::<Vec<_>>()) {
                Ok(table) => return (patterns, table),
                Err(conflicts) => {
                    patterns.remove(conflicts[0].pair.1);
                }
            }
        }
    }

    fn is_narrower(one: &Rule, other: &Rule) -> bool {
        let (a, b) = (&one.pattern, &other.pattern);
        if !b.host.is_within(&a.host, Domain::Hosts) {
            return a.host.is_within(&b.host, Domain::Hosts);
        }
        a.host.is_within(&b.host, Domain::Hosts)
            && method_within(a.method(), b.method())
            && a.path.is_within(&b.path, Domain::Paths)
            && (other.when.is_none() || one.when == other.when)
    }

    /// All rules that a request meets; the winner is the one that is narrower than every other.
    fn naive(table: &Table, line: &str) -> String {
        let mut met = Vec::new();
        for rule in table.rules() {
            let alone = Table::build(vec![rule.clone()]).unwrap();
            let answer = ask(&alone, line);
            if !answer.starts_with("40") {
                met.push((rule, answer));
            }
        }
        let best: Vec<_> = met
            .iter()
            .filter(|(one, _)| met.iter().all(|(other, _)| one.id == other.id || is_narrower(one, other)))
            .collect();
        assert!(best.len() == 1 || met.is_empty(), "{line}: {} best of {}", best.len(), met.len());
        best.first().map_or_else(|| "miss".to_owned(), |(_, answer)| answer.clone())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn find_agrees_with_trying_every_rule(
            patterns in prop::collection::vec(pattern(), 1..24),
            requests in prop::collection::vec(request(), 1..40),
        ) {
            let (patterns, table) = without_conflicts(patterns);
            for line in &requests {
                let found = ask(&table, line);
                let found = if found.starts_with("40") { "miss".to_owned() } else { found };
                prop_assert_eq!(found, naive(&table, line), "{} of {:?}", line, patterns);
            }
        }

        /// What is not compared does not conflict.
        #[test]
        fn conflicts_agree_with_comparing_every_pair(patterns in prop::collection::vec(pattern(), 2..24)) {
            let rules: Vec<Rule> = patterns.iter().enumerate().map(|(index, text)| rule(index, text)).collect();
            let every = (0..rules.len()).flat_map(|first| (first + 1..rules.len()).map(move |second| (first, second)));
            let every = every.filter_map(|pair| Some(Conflict { pair, why: conflict(&rules[pair.0], &rules[pair.1])? }));
            let every: Vec<_> = every.take(CONFLICTS_MAX).collect();
            prop_assert_eq!(Table::build(rules).err().unwrap_or_default(), every);
        }

        /// The example that a conflict shows is met by both rules, each alone.
        #[test]
        fn conflicts_show_a_true_example(one in pattern(), other in pattern()) {
            let Err(conflicts) = build(&[&one, &other]) else { return Ok(()) };
            let example = conflicts[0].why.split("both match `").nth(1).unwrap().split('`').next().unwrap();
            let example = example.replace(" with ", " if ").replace(" and ", "; ");
            for text in [&one, &other] {
                let mut rule = rule(0, text);
                rule.action = Action::Reply;
                let alone = Table::build(vec![rule]).unwrap();
                let answer = ask(&alone, &example);
                prop_assert!(!answer.starts_with("40"), "{} on {}", text, example);
            }
        }
    }
}

/// No path makes a look-up walk more than the table is large, and no segment more than its length.
#[test]
fn hostile_paths_cost_their_length() {
    let table = build(&["/a/", "/b/{y}/{z...}", "/", "GET /m/{a}x{b}x{c}.json", "GET /n/{a}2{b}2{c}"]).unwrap();
    let deep = "/a".repeat(500_000);
    assert_eq!(ask(&table, &format!("GET {deep}")), "/a/");
    let slashes = format!("/b/{}", "x/".repeat(500_000));
    assert!(ask(&table, &format!("GET {slashes}")).starts_with("/b/{y}/{z...} y=x z=x/"));
    for segment in ["x".repeat(1_000_000), "%22".repeat(300_000), "x.json".repeat(150_000)] {
        for folder in ["m", "n"] {
            let _ = ask(&table, &format!("GET /{folder}/{segment}"));
        }
    }
}

/// The worst table there is: every mixture of a literal and a name at each of ten segments, told apart by method only.
/// The walk visits each node once, so that a request that nothing serves costs the table and no more.
#[test]
fn an_adversarial_table_costs_its_size() {
    let patterns: Vec<String> = (0..1u32 << 10)
        .map(|mixture| {
            let name = |at: u32| if mixture >> at & 1 == 0 { "a".to_owned() } else { format!("{{n{at}}}") };
            let path: String = (0..10).map(|at| format!("/{}", name(at))).collect();
            format!("M{mixture} {path}")
        })
        .collect();
    let table = build(&patterns.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    assert_eq!(table.hosts.nodes[0].below.as_ref().unwrap().nodes.len(), (1 << 11) - 1);
    let path = "/a".repeat(10);
    assert_eq!(ask(&table, &format!("M1023 {path}")).split(' ').count(), 12);
    assert_eq!(ask(&table, &format!("NONE {path}")).split(',').count(), 1024);
    assert_eq!(ask(&table, &format!("NONE {path}/a")), "404");
}

/// Thousands of routes are built and asked; a look-up does not read them one by one.
#[test]
fn a_large_table() {
    let patterns: Vec<String> =
        (0..3000).flat_map(|at| [format!("/v1/r{at}/{{id}}"), format!("GET /v1/r{at}/{{id}}.json")]).collect();
    let table = build(&patterns.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    for at in (0..3000).step_by(17) {
        let answer = ask(&table, &format!("GET /v1/r{at}/7.json"));
        assert_eq!(answer, format!("GET /v1/r{at}/{{id}}.json id=7"));
    }
}
