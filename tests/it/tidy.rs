//! House rules as tests: the order of modules, what every file owes its reader, and what must not stay behind.

use crate::harness::process;
use std::fs;
use std::path::{Path, PathBuf};

/// A file longer than this holds more than one thought.
const LINES_MAX: usize = 900;

/// Where every path begins.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `folder` that end in `.extension`.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("a folder can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn rust_files() -> Vec<PathBuf> {
    ["src", "tests", "benches", "fuzz/fuzz_targets"].iter().flat_map(|folder| files(folder, "rs")).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn short(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

#[track_caller]
fn none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

/// The modules in their order, as `src/lib.rs` lists them.
fn order(lib: &str) -> Vec<&str> {
    lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect()
}

/// The modules that a file's code names after `crate::`, also within braces.
fn looks_at(code: &str) -> Vec<String> {
    let code: String = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    for after in code.split("crate::").skip(1) {
        match after.strip_prefix('{') {
            Some(list) => found.extend(top_names(list)),
            None => found.push(name_at(after)),
        }
    }
    found
}

/// The first names of a braced list, up to its closing brace.
fn top_names(list: &str) -> Vec<String> {
    let (mut names, mut depth, mut fresh) = (Vec::new(), 1, true);
    for (at, sign) in list.char_indices() {
        match sign {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => fresh = true,
            _ if fresh && depth == 1 && !sign.is_whitespace() => {
                names.push(name_at(&list[at..]));
                fresh = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

fn name_at(text: &str) -> String {
    text.chars().take_while(|sign| sign.is_alphanumeric() || *sign == '_').collect()
}

#[test]
fn modules_look_only_upwards() {
    let lib = read(&root().join("src/lib.rs"));
    let order = order(&lib);
    assert!(order.len() >= 20, "src/lib.rs lists the modules: {order:?}");
    let place = |module: &str| order.iter().position(|name| *name == module);
    let mut wrong = Vec::new();
    for path in files("src", "rs") {
        let inside = path.strip_prefix(root().join("src")).expect("it lies in src");
        let module = inside.iter().next().and_then(|part| part.to_str()).unwrap_or_default();
        let module = module.trim_end_matches(".rs");
        if matches!(module, "lib" | "main") {
            continue;
        }
        let Some(own) = place(module) else {
            wrong.push(format!("{} belongs to no module of src/lib.rs", short(&path)));
            continue;
        };
        for other in looks_at(&read(&path)) {
            if place(&other).is_some_and(|place| place > own) {
                wrong.push(format!("{} looks down at `{other}`", short(&path)));
            }
        }
    }
    none("the order of modules in src/lib.rs is broken", wrong);
}

#[test]
fn the_order_test_sees_what_it_should() {
    assert_eq!(order("//! x\npub mod a;\nmod b;\npub mod c;\n"), ["a", "c"]);
    let code =
        "use crate::a::{b, c};\n// crate::no\nuse crate::{d::{e, f}, g::h,\n  i};\nlet x = crate::j::k(crate::l);";
    assert_eq!(looks_at(code), ["a", "d", "g", "i", "j", "l"]);
}

#[test]
fn every_file_says_what_it_is() {
    let bare = |path: &PathBuf| !read(path).starts_with("//! ");
    none(
        "files without a `//!` header",
        rust_files().iter().filter(|path| bare(path)).map(|path| short(path)).collect(),
    );
}

#[test]
fn no_file_grows_without_end() {
    let lines = |path: &Path| read(path).lines().count();
    let long = rust_files().into_iter().filter(|path| lines(path) > LINES_MAX);
    none(
        "files that should be several",
        long.map(|path| format!("{} ({} lines)", short(&path), lines(&path))).collect(),
    );
}

#[test]
fn nothing_is_left_for_later() {
    // In pieces, so that this file does not find itself.
    let marks = [concat!("unimpl", "emented!("), concat!("to", "do!("), concat!("(to ", "come)"), concat!("FIX", "ME")];
    let mut left = Vec::new();
    for path in rust_files() {
        for (number, line) in read(&path).lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark)) {
                left.push(format!("{}:{}: {}", short(&path), number + 1, line.trim()));
            }
        }
    }
    none("left for later", left);
}

#[test]
fn no_path_of_a_machine_is_written_down() {
    let marks = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];
    let mut paths = rust_files();
    paths.extend(["toml", "md", "wire", "json"].iter().flat_map(|end| {
        ["src", "tests", "config", "benches", "docs", "fuzz/fuzz_targets"]
            .into_iter()
            .flat_map(|folder| files(folder, end))
    }));
    let at_top = fs::read_dir(root()).expect("the root can be listed").map(|entry| entry.expect("an entry").path());
    paths.extend(at_top.filter(|path| path.extension().is_some_and(|end| end == "md" || end == "toml")));
    paths.extend([root().join("Dockerfile"), root().join(".ci/run")].into_iter().filter(|path| path.exists()));
    let named = |path: &PathBuf| {
        let text = read(path);
        marks.iter().find(|mark| text.contains(**mark)).map(|mark| format!("{}: {mark}", short(path)))
    };
    none("paths that exist on one machine only", paths.iter().filter_map(named).collect());
}

#[test]
fn every_sample_configuration_is_good() {
    // What is included by others (routes alone, say) is checked through them.
    let all = files("config", "toml");
    let included = |path: &PathBuf| {
        let name = format!("include = [\"{}\"]", path.file_name().expect("a file").to_string_lossy());
        all.iter().any(|other| other.parent() == path.parent() && read(other).contains(&name))
    };
    let samples: Vec<&PathBuf> = all.iter().filter(|path| !included(path)).collect();
    assert!(!samples.is_empty(), "there is a sample configuration");
    for path in samples {
        let output = process::run(&["check", "--config", path.to_str().expect("a plain path")]);
        assert!(output.status.success(), "{}:\n{}", short(path), String::from_utf8_lossy(&output.stderr));
    }
}
