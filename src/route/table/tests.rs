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
            for (name, value) in matched.captures {
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
