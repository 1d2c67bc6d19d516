//! What is under `packaging/`: every command that it starts exists, every configuration in it is good, and what its files
//! say of each other is true.

use crate::harness::folder::{self, Folder};
use crate::harness::process;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use yaml_rust2::{Yaml, YamlLoader};

fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(packaging(name)).unwrap_or_else(|error| panic!("packaging/{name}: {error}"))
}

fn yaml(name: &str) -> Vec<Yaml> {
    YamlLoader::load_from_str(&read(name)).unwrap_or_else(|error| panic!("packaging/{name}: {error}"))
}

/// The certificates of a deployment, also under the names that Kubernetes mounts.
fn certificates() -> Folder {
    let folder = folder::new();
    let out = folder.path().to_str().unwrap();
    let made = process::run(&["certs", "--out", out, "central", "fr", "us", "jp"]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    folder
}

/// Checks a configuration as the process that it is for would read it; its certificates are `certs`, and where it is to
/// get one of its own as `peer`, that of `edge`.
#[track_caller]
fn is_good(what: &str, text: &str, edge: &str, certs: &Folder) {
    let here = certs.path().to_str().unwrap();
    for end in ["pem", "key"] {
        fs::copy(certs.join(&format!("{edge}.{end}")), certs.join(&format!("peer.{end}"))).unwrap();
    }
    let file = certs.write("checked.toml", text.replace("/etc/coordinator/certs", here));
    let mut command = process::command(&["check", "--strict", "--config", file.to_str().unwrap()]);
    let output = command.env("EDGE", edge).output().unwrap();
    assert!(output.status.success(), "{what} for {edge}:\n{}", String::from_utf8_lossy(&output.stderr));
}

/// Whether these are words that `coordinator` takes.
#[track_caller]
fn is_command(what: &str, words: &[&str]) {
    let output: Output = process::run(&[words, &["--help"]].concat());
    assert!(output.status.success(), "{what}: {words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The seconds of `drain_wait` plus `drain` in a configuration.
fn drain(text: &str) -> u64 {
    let table: toml::Table = text.parse().unwrap();
    let seconds = |name: &str, default: &str| {
        let text = table.get("timeouts").and_then(|timeouts| timeouts.get(name)).and_then(toml::Value::as_str);
        text.unwrap_or(default).trim_end_matches('s').parse::<u64>().unwrap()
    };
    seconds("drain_wait", "0s") + seconds("drain", "10s")
}

#[test]
fn units_start_what_there_is() {
    let certs = certificates();
    for (unit, config) in [("coordinator", "edge.toml"), ("coordinator-central", "central.toml")] {
        let text = read(&format!("systemd/{unit}.service"));
        let all = |key: &str| -> Vec<String> {
            text.lines().filter_map(|line| line.strip_prefix(&format!("{key}="))).map(str::to_owned).collect()
        };
        assert_eq!(all("Type"), ["notify"]);
        let ours = all("ExecStart").into_iter().chain(all("ExecReload"));
        let ours: Vec<_> = ours.filter(|line| line.starts_with("/usr/bin/coordinator ")).collect();
        assert_eq!(ours.len(), 2, "{unit}: it starts, and a reload checks first: {ours:?}");
        for line in &ours {
            let words: Vec<&str> = line.split(' ').skip(1).collect();
            is_command(unit, &words);
            assert!(line.ends_with(&format!("--config /etc/coordinator/{config}")), "{line}");
        }
        let shipped = read(&format!("debian/{config}"));
        is_good(config, &shipped, "fr", &certs);
        let data = format!("data = \"/var/lib/{}\"", all("StateDirectory")[0]);
        assert!(shipped.contains(&data), "{unit}: {data} is where it may write");
        assert!(drain(&shipped) < all("TimeoutStopSec")[0].parse().unwrap(), "{unit} has the time to drain");
    }
}

#[test]
fn the_debian_package_lists_what_there_is() {
    let cargo: toml::Table = fs::read_to_string(packaging("../Cargo.toml")).unwrap().parse().unwrap();
    let deb = &cargo["package"]["metadata"]["deb"];
    let assets: Vec<_> = deb["assets"].as_array().unwrap().iter().map(|asset| asset[0].as_str().unwrap()).collect();
    let made = |asset: &&&str| !asset.starts_with("target/");
    for asset in assets.iter().filter(made) {
        assert!(packaging("..").join(asset).is_file(), "{asset}");
    }
    for unit in deb["systemd-units"].as_array().unwrap() {
        let name = unit["unit-name"].as_str().unwrap();
        assert!(packaging("systemd").join(format!("{name}.service")).is_file(), "{name}");
    }
}

/// A member, also one that a merge key brings.
fn member<'a>(value: &'a Yaml, name: &str) -> &'a Yaml {
    match &value[name] {
        Yaml::BadValue if !value["<<"].is_badvalue() => member(&value["<<"], name),
        found => found,
    }
}

fn words(list: &Yaml) -> Vec<&str> {
    list.as_vec().map(|list| list.iter().filter_map(Yaml::as_str).collect()).unwrap_or_default()
}

#[test]
fn the_compose_file_holds_together() {
    let compose = &yaml("compose/compose.yaml")[0];
    let services = compose["services"].as_hash().expect("services");
    let certs = certificates();
    let names: BTreeSet<&str> = services.keys().filter_map(Yaml::as_str).collect();
    for edge in ["central", "fr", "us", "jp"] {
        assert!(names.contains(edge), "{edge} is a service");
    }
    for (name, service) in services {
        let name = name.as_str().unwrap();
        if member(service, "image").as_str() == Some("coordinator") {
            is_command(name, &words(member(service, "command")));
        }
        for wanted in member(service, "depends_on").as_hash().into_iter().flat_map(|hash| hash.keys()) {
            assert!(names.contains(wanted.as_str().unwrap()), "{name} waits for {wanted:?}");
        }
        for volume in words(&service["volumes"]) {
            let (from, to) = volume.split_once(':').unwrap();
            match from.strip_prefix("./") {
                None => assert!(!compose["volumes"][from].is_badvalue(), "{name}: the volume {from} is declared"),
                Some(file) => {
                    let text = read(&format!("compose/{file}"));
                    let edge = member(service, "environment")["EDGE"].as_str().unwrap_or("central");
                    is_good(file, &text, edge, &certs);
                    let path = to.trim_end_matches(":ro");
                    assert!(words(member(service, "command")).contains(&path), "{name} reads {path}");
                    let grace = member(service, "stop_grace_period").as_str().unwrap().trim_end_matches('s');
                    assert!(drain(&text) < grace.parse().unwrap(), "{name} has the time to drain");
                    let published = words(&service["ports"]);
                    let inside = published.iter().map(|port| port.split_once(':').unwrap().1);
                    inside
                        .for_each(|port| assert!(text.contains(&format!("[::]:{port}\"")), "{name}: {port} is a door"));
                    let origin = text.split("origins = [\"http://").nth(1).unwrap().split(':').next().unwrap();
                    let origin = origin.replace("${EDGE}", edge);
                    assert!(names.contains(&*origin), "{name}: its application {origin} is a service");
                }
            }
        }
    }
}

#[test]
fn the_kubernetes_manifests_hold_together() {
    let certs = certificates();
    for file in ["edge", "central"] {
        let all = yaml(&format!("kubernetes/{file}.yaml"));
        let of = |kind: &str| all.iter().filter(|one| one["kind"].as_str() == Some(kind)).collect::<Vec<_>>();
        assert!(
            all.iter().all(|one| one["apiVersion"].as_str().is_some() && one["metadata"]["name"].as_str().is_some())
        );
        let [set] = of("StatefulSet")[..] else { panic!("{file}: one StatefulSet") };
        let [map] = of("ConfigMap")[..] else { panic!("{file}: one ConfigMap") };
        let pod = &set["spec"]["template"];
        let container = &pod["spec"]["containers"][0];
        let config = map["data"][&*format!("{file}.toml")].as_str().expect("the configuration");
        is_good(file, config, if file == "edge" { "fr" } else { "central" }, &certs);
        is_command(file, &words(&container["args"]));
        let grace = pod["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap();
        assert!(i64::try_from(drain(config)).unwrap() < grace, "{file} has the time to drain");

        let port = |name: &str| {
            let ports = container["ports"].as_vec().unwrap();
            ports
                .iter()
                .find(|port| port["name"].as_str() == Some(name))
                .and_then(|port| port["containerPort"].as_i64())
        };
        for port in container["ports"].as_vec().unwrap() {
            let door = format!("address = \"[::]:{}\"", port["containerPort"].as_i64().unwrap());
            assert!(config.contains(&door), "{file}: {door}");
        }
        for (probe, path) in
            [("startupProbe", "/health/live"), ("livenessProbe", "/health/live"), ("readinessProbe", "/health/ready")]
        {
            let get = &container[probe]["httpGet"];
            assert_eq!((get["path"].as_str(), get["port"].as_str()), (Some(path), Some("observe")), "{file}: {probe}");
        }
        assert_eq!(port("observe"), Some(9901));
        for service in of("Service") {
            assert_eq!(service["spec"]["selector"], pod["metadata"]["labels"], "{file}: it finds its pods");
            for target in service["spec"]["ports"].as_vec().unwrap() {
                assert!(port(target["targetPort"].as_str().unwrap()).is_some(), "{file}: {target:?}");
            }
        }
        assert_eq!(set["spec"]["selector"]["matchLabels"], pod["metadata"]["labels"]);
        let volumes = pod["spec"]["volumes"].as_vec().unwrap().iter().map(|volume| volume["name"].as_str());
        let claims = set["spec"]["volumeClaimTemplates"].as_vec().unwrap().iter();
        let known: Vec<_> = volumes.chain(claims.map(|claim| claim["metadata"]["name"].as_str())).collect();
        for mount in container["volumeMounts"].as_vec().unwrap() {
            assert!(known.contains(&mount["name"].as_str()), "{file}: {mount:?}");
        }
    }
}

#[test]
fn the_package_and_the_image_are_of_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    assert!(read("debian/changelog").starts_with(&format!("coordinator ({version}-")));
    for file in ["kubernetes/edge.yaml", "kubernetes/central.yaml"] {
        assert!(read(file).contains(&format!("image: coordinator:{version}")), "{file} is of version {version}");
    }
}
