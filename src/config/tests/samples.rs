//! The sample files load, and the manual neither forgets a key nor tells a wrong default.

use super::*;
use crate::config::{problem::Sources, read};

fn manual() -> String {
    std::fs::read_to_string("config/edge.toml").unwrap()
}

/// Takes the comment signs of defaults (`#key`) away, and with `examples` also those of `#+ key`.
fn uncommented(text: &str, examples: bool) -> String {
    let line = |line: &str| match line.strip_prefix("#+ ") {
        Some(example) if examples => example.to_owned(),
        _ => match line.strip_prefix('#') {
            Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => key.to_owned(),
            _ => line.to_owned(),
        },
    };
    text.lines().map(|text| line(text) + "\n").collect()
}

fn load(name: &str, text: &str) -> Outcome {
    load::from_text(Kind::Edge, name, text, &no_env, Strictness::Run)
}

#[test]
fn every_sample_loads() {
    let names = ["edge", "central", "three-edges/fr", "three-edges/us", "three-edges/jp", "three-edges/central"];
    for name in names {
        let (kind, outcome) = load::either(&Path::new("config").join(format!("{name}.toml")), &no_env, Strictness::Run);
        assert_eq!(outcome.render(false), "", "{name}");
        assert_eq!(kind == Kind::Central, name.ends_with("central"), "{name}");
        assert!(outcome.plan.is_some(), "{name}");
    }
}

/// Everything that a plan says, line by line; not where its routes stand, and nothing in the order of a hash map.
fn says(text: &str, what: &str) -> Vec<String> {
    let outcome = load("edge.toml", text);
    assert_eq!(outcome.render(false), "", "{what}");
    let mut plan = outcome.plan.unwrap();
    plan.settings.iter_mut().for_each(|route| route.at.clear());
    let rules = format!("{:#?}", std::mem::take(&mut plan.routes).rules());
    let edges = format!("{:#?}", std::mem::take(&mut plan.edges).list());
    format!("{plan:#?}\n{rules}\n{edges}").lines().map(str::to_owned).collect()
}

fn assert_same(left: &[String], right: &[String], what: &str) {
    let differing: Vec<_> = left.iter().zip(right).filter(|(a, b)| a != b).take(5).collect();
    assert!(differing.is_empty() && left.len() == right.len(), "{what}: {differing:#?}");
}

#[test]
fn the_defaults_of_the_manual_are_those_of_the_code() {
    let defaults = uncommented(&manual(), false);
    assert_ne!(defaults, manual(), "nothing was uncommented");
    assert_same(&says(&manual(), "as written"), &says(&defaults, "with defaults"), "defaults");
}

/// The defaults of the schema, written into a file that is right, change nothing either.
#[test]
fn the_defaults_of_the_schema_are_those_of_the_code() {
    let text = manual();
    let plain = says(&text, "as written");
    let schema = crate::config::schema(Kind::Edge);
    let mut seen = 0;
    for section in ["limits", "timeouts", "retry", "log", "trust", "tls", "edge", "peer", "admin", "local"] {
        for (key, shape) in schema["properties"][section]["properties"].as_object().unwrap() {
            let Some(default) = shape.get("default") else { continue };
            let what = format!("{section}.{key}");
            let at = text.find(&format!("\n[{section}]\n")).unwrap() + section.len() + 4;
            assert_same(&plain, &says(&format!("{}{key} = {default}\n{}", &text[..at], &text[at..]), &what), &what);
            seen += 1;
        }
    }
    assert!(seen > 25, "{seen}");
}

#[test]
fn the_manual_holds_every_key() {
    let text = uncommented(&manual(), true);
    let outcome = load("edge.toml", &text);
    let unexpected: Vec<_> = outcome
        .problems
        .iter()
        .filter(|problem| !problem.wrong.ends_with("is not built yet") && !problem.wrong.contains("cannot be read"))
        .collect();
    assert!(unexpected.is_empty(), "{}", outcome.render(false));
    let mut sources = Sources::default();
    let source = sources.add(problem::Source::new("edge.toml", text.as_str(), ""));
    let mut plain = |text: &str, _: _, _: &Sources| Some(Text { value: text.to_owned(), origin: Origin::Written });
    let table = tree::parse(source, &sources, &mut plain, &mut Vec::new());
    let root = Node { place: problem::Place::default(), value: Value::Table(table) };
    let mut missing = Vec::new();
    unmentioned(&crate::config::schema(Kind::Edge), &[&root], "", &mut missing);
    assert!(missing.is_empty(), "{missing:#?}");
}

/// Collects the keys of a schema that none of some values writes.
fn unmentioned(schema: &Json, nodes: &[&Node], path: &str, missing: &mut Vec<String>) {
    let tables = |nodes: &[&Node]| -> Vec<Table> {
        let table = |node: &&Node| match &node.value {
            Value::Table(table) => Some(table.clone()),
            _ => None,
        };
        nodes.iter().filter_map(table).collect()
    };
    for shape in schema.get("anyOf").and_then(Json::as_array).into_iter().flatten() {
        unmentioned(shape, nodes, path, missing);
    }
    if let Some(items) = schema.get("items") {
        let items_of = |node: &&Node| match &node.value {
            Value::List(items) => items.clone(),
            _ => Vec::new(),
        };
        let inner: Vec<Node> = nodes.iter().flat_map(items_of).collect();
        unmentioned(items, &inner.iter().collect::<Vec<_>>(), path, missing);
    }
    if let Some(named) = schema.get("additionalProperties").filter(|named| named.is_object()) {
        let tables = tables(nodes);
        let inner: Vec<_> = tables.iter().flat_map(|table| &table.entries).map(|entry| &entry.node).collect();
        unmentioned(named, &inner, &format!("{path}.*"), missing);
    }
    // The keys of a cluster are shown at [local] only, and those of [compress] there.
    let shown_elsewhere = [".clusters.*", ".route.compress"].contains(&path);
    for (key, shape) in schema.get("properties").and_then(Json::as_object).into_iter().flatten() {
        let (path, tables) = (format!("{path}.{key}"), tables(nodes));
        let inner: Vec<_> = tables.iter().filter_map(|table| table.get(key)).map(|entry| &entry.node).collect();
        if inner.is_empty() && !shown_elsewhere && !text_holds(&path) {
            missing.push(path.clone());
        }
        if !inner.is_empty() {
            unmentioned(shape, &inner, &path, missing);
        }
    }
}

/// `include` is taken out before tables are read; the manual shows it as a comment with its default.
fn text_holds(path: &str) -> bool {
    path == ".include" && manual().contains("\n#include = []\n")
}

#[test]
fn a_schema_describes_every_key() {
    for kind in [Kind::Edge, Kind::Central] {
        let schema = crate::config::schema(kind);
        undescribed(&schema, "");
        assert_eq!(schema["additionalProperties"], false);
    }
    let schema = crate::config::schema(Kind::Edge);
    assert_eq!(schema["properties"]["timeouts"]["properties"]["head"]["default"], "10s");
    assert_eq!(schema["properties"]["edge"]["required"], serde_json::json!(["name"]));
    assert_eq!(schema["properties"]["local"]["properties"]["balance"]["enum"][1], "round_robin");
    assert!(read::nearest("timout", &["timeout", "retry"]) == Some("timeout"));
}

fn undescribed(schema: &Json, path: &str) {
    for (key, shape) in schema.get("properties").and_then(Json::as_object).into_iter().flatten() {
        let described = shape["description"].as_str().is_some_and(|text| text.len() > 5);
        assert!(described, "{path}.{key} has no description");
        undescribed(shape, &format!("{path}.{key}"));
    }
}
