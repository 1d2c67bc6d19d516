//! What the kernel says that a subject costs: CPU time and memory of a process and all that it started.

use std::fs;
use std::time::Duration;

/// A process and its descendants.
pub fn tree(root: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let all = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: Vec<(u32, u32)> = all.filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut tree = vec![root];
    let mut at = 0;
    while let Some(&parent) = tree.get(at) {
        tree.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    tree
}

fn parent(pid: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may itself hold spaces and brackets.
    text.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// CPU time of all threads so far, as the scheduler counts it, in nanoseconds; user and system.
pub fn cpu(processes: &[u32]) -> Duration {
    let tasks =
        processes.iter().flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten());
    let times = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(times.sum())
}

/// Memory in KiB: shared pages counted once (PSS), or resident pages where the kernel does not tell.
pub fn memory_kib(processes: &[u32]) -> u64 {
    let of = |pid: &u32| {
        field(&format!("/proc/{pid}/smaps_rollup"), "Pss:").or_else(|| field(&format!("/proc/{pid}/status"), "VmRSS:"))
    };
    processes.iter().filter_map(of).sum()
}

fn field(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_whitespace().next()?.parse().ok()
}
