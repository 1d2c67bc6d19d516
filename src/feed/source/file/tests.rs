//! The file source with real homes behind it: versions, breaks, restarts, lost records.

use super::super::super::link;
use super::super::super::status::LinkStatus;
use super::*;
use crate::home::Home;
use crate::homes::Asked;
use tokio::sync::watch;
use tokio::task::JoinHandle;

const WAIT: Duration = Duration::from_secs(10);

/// An edge that follows a file.
struct Edge {
    homes: Arc<Homes>,
    status: Arc<LinkStatus>,
    stop: watch::Sender<bool>,
    link: JoinHandle<Result<(), String>>,
}

impl Edge {
    fn start(dir: &Path, file: &Path) -> Edge {
        let (homes, applier, asks) = Homes::open(dir, "fr", vec!["user".into()]).unwrap();
        let (status, stop) = (Arc::new(LinkStatus::default()), watch::Sender::new(false));
        let edges: KnownEdges = Arc::new(|| vec!["fr".into(), "de".into()]);
        let source = File::new(file.to_owned(), dir, edges, status.clone());
        let link = tokio::spawn(link::run_from(source, applier, asks, status.clone(), stop.subscribe()));
        Edge { homes, status, stop, link }
    }

    async fn until(&self, what: &str, mut holds: impl FnMut(&Edge) -> bool) {
        let end = crate::base::clock::now() + WAIT;
        while !holds(self) {
            assert!(crate::base::clock::now() < end, "{what}: {:?} {:?}", self.status, self.homes.cursor());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        self.link.await.unwrap().unwrap();
    }

    fn is_ours(&self, key: &str) -> Option<u32> {
        match self.homes.look("user", key) {
            Home::Ours { epoch, provisional: false } => Some(epoch),
            _ => None,
        }
    }

    fn is_elsewhere(&self, key: &str) -> bool {
        matches!(self.homes.look("user", key), Home::At { .. })
    }
}

/// Replaces the file as one should: whole, by a rename.
fn put(file: &Path, text: &str) {
    let beside = file.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, file).unwrap();
}

fn homes(all: &[(&str, &str)]) -> String {
    all.iter().map(|(key, home)| format!("{{\"key\":\"{key}\",\"home\":\"{home}\"}}\n")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_followed_over_changes_breaks_and_restarts() {
    let data = tempfile::tempdir().unwrap();
    let (dir, file) = (data.path().join("edge"), data.path().join("homes.jsonl"));
    std::fs::create_dir(&dir).unwrap();
    let edge = Edge::start(&dir, &file);
    edge.until("trouble without a file", |edge| edge.status.trouble().is_some_and(|why| why.contains("homes.jsonl")))
        .await;
    assert!(!edge.homes.is_loaded());

    put(&file, &homes(&[("1", "fr"), ("2", "de")]));
    edge.until("first version", |edge| edge.is_ours("1") == Some(1) && edge.is_elsewhere("2")).await;
    assert_eq!(edge.homes.ask("user", "3").await, Asked::NoSuchKey);

    put(&file, &homes(&[("1", "de"), ("2", "fr"), ("3", "fr")]));
    edge.until("changed", |edge| {
        edge.is_elsewhere("1") && edge.is_ours("2") == Some(2) && edge.is_ours("3") == Some(1)
    })
    .await;

    // A line is cut: it is told, the others count, nobody is removed.
    put(&file, "{\"key\":\"4\",\"home\":\"fr\"}\n{\"key\":\"2\",\"ho");
    edge.until("one more", |edge| edge.is_ours("4") == Some(1)).await;
    edge.until("told", |edge| edge.status.trouble().is_some_and(|why| why.contains("line 2"))).await;
    assert_eq!((edge.is_ours("2"), edge.is_ours("3")), (Some(2), Some(1)));

    // Gone and empty files remove nobody either.
    std::fs::remove_file(&file).unwrap();
    edge.until("gone", |edge| edge.status.trouble().is_some_and(|why| why.contains("cannot be read"))).await;
    put(&file, "");
    edge.until("empty", |edge| edge.status.trouble().is_some_and(|why| why.contains("lists no home"))).await;
    assert_eq!(edge.is_ours("2"), Some(2));
    let seq = edge.homes.cursor().seq;
    edge.stop().await;

    // Epochs outlive the process, and what the file says meanwhile is seen at the start.
    put(&file, &homes(&[("1", "fr"), ("2", "fr")]));
    let edge = Edge::start(&dir, &file);
    assert!(edge.homes.cursor().seq == seq && edge.is_ours("2") == Some(2), "served before the file is read");
    edge.until("back", |edge| edge.is_ours("1") == Some(3)).await;
    edge.until("removed", |edge| edge.is_ours("3").is_none() && edge.is_ours("4").is_none()).await;
    assert_eq!(edge.status.trouble(), None);
    assert!(edge.status.is_up() && edge.status.lag_seq() == 0);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_record_a_map_is_not_continued() {
    let data = tempfile::tempdir().unwrap();
    let (dir, file) = (data.path().join("edge"), data.path().join("homes.jsonl"));
    std::fs::create_dir(&dir).unwrap();
    put(&file, &homes(&[("1", "fr"), ("2", "fr")]));
    let edge = Edge::start(&dir, &file);
    edge.until("followed", |edge| edge.is_ours("2") == Some(1)).await;
    edge.stop().await;

    let record = dir.join(RECORD);
    let text = std::fs::read(&record).unwrap();
    for damaged in [&text[..text.len() - 1], b"", b"{}"] {
        std::fs::write(&record, damaged).unwrap();
        let edge = Edge::start(&dir, &file);
        edge.until("alarmed", |edge| edge.status.alarm() == Some(Alarm::LostHistory)).await;
        assert_eq!(edge.is_ours("1"), Some(1), "it goes on with what it has");
        edge.stop().await;
    }
    std::fs::remove_file(&record).unwrap();
    put(&file, &homes(&[("1", "fr")]));
    let edge = Edge::start(&dir, &file);
    edge.until("alarmed", |edge| edge.status.alarm() == Some(Alarm::LostHistory)).await;
    edge.stop().await;
}
