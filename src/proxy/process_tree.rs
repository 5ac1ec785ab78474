//! The tree of processes, by proc(5).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io, iter,
};

use nix::unistd::Pid;

/// Every process below `ancestor`, itself not included.
pub fn descendants(ancestor: Pid) -> io::Result<BTreeSet<Pid>> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // It may have ended meanwhile.
        if let Some(parent) = fs::read_to_string(format!("/proc/{pid}/stat")).ok().as_deref().and_then(parent) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = BTreeSet::new();
    let mut next = vec![ancestor.as_raw()];
    while let Some(pid) = next.pop() {
        let below = children.get(&pid).into_iter().flatten().filter(|child| found.insert(Pid::from_raw(**child)));
        next.extend(below);
    }
    Ok(found)
}

/// The fourth field of /proc/PID/stat (proc_pid_stat(5)).
pub(crate) fn parent(stat: &str) -> Option<i32> {
    stat_field(stat, 4)?.parse().ok()
}

/// The processes below `ancestor`, each after those below itself and the newest first: what connects for the first time is mostly new and has no
/// children. What ends or starts meanwhile may hide others (proc_tid_children(5)); [`descendants`] misses less and costs the whole of /proc.
pub fn newest_below(ancestor: Pid) -> impl Iterator<Item = Pid> {
    let mut path = vec![(ancestor, children(ancestor))];
    iter::from_fn(move || {
        while let Some(child) = path.last_mut()?.1.next() {
            path.push((child, children(child)));
        }
        let (pid, _) = path.pop()?;
        (!path.is_empty()).then_some(pid)
    })
}

/// By the threads that started them: the main one first, as most programs start others there.
fn children(parent: Pid) -> impl Iterator<Item = Pid> {
    let threads = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    threads.flat_map(|thread| {
        let oldest_first = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        let pids: Vec<Pid> = oldest_first.split_ascii_whitespace().filter_map(|pid| Some(Pid::from_raw(pid.parse().ok()?))).collect();
        pids.into_iter().rev()
    })
}

/// A field of /proc/PID/stat (proc_pid_stat(5)), counted from 1, past the second: that is the program's name and may hold anything, parentheses too.
pub fn stat_field(stat: &str, number: usize) -> Option<&str> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(number.checked_sub(3)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        process::{Command, Stdio},
        sync::mpsc,
        thread,
    };

    #[test]
    fn parents_of_programs_with_odd_names() {
        assert_eq!(parent("17 (a) b) S 4 17 17 0"), Some(4));
        assert_eq!(parent("17 (sh"), None);
    }

    /// What a thread other than the main one starts is its own child, as far as the kernel's lists go.
    #[test]
    fn children_of_every_thread() {
        let (tell, told) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        thread::scope(|scope| {
            scope.spawn(move || {
                // Two levels: the shell waits for a child of its own.
                let mut child = Command::new("sh").args(["-c", "cat; true"]).stdin(Stdio::piped()).spawn().unwrap();
                tell.send(Pid::from_raw(child.id().cast_signed())).unwrap();
                let _ = ended.recv();
                drop(child.stdin.take());
                child.wait().unwrap();
            });
            let shell = told.recv().unwrap();
            while children(shell).next().is_none() {
                thread::yield_now();
            }
            let cat = children(shell).next().unwrap();
            let below: Vec<_> = newest_below(Pid::this()).collect();
            let at = |pid| below.iter().position(|found| *found == pid).unwrap();
            assert!(at(cat) < at(shell));
            assert!(descendants(Pid::this()).unwrap().is_superset(&[cat, shell].into()));
            drop(end);
        });
    }

    #[test]
    fn the_newest_first() {
        let start = || Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let mut both = [start(), start()];
        let pids = both.each_ref().map(|child| Pid::from_raw(child.id().cast_signed()));
        let below: Vec<_> = newest_below(Pid::this()).filter(|pid| pids.contains(pid)).collect();
        assert_eq!(below, [pids[1], pids[0]]);
        for child in &mut both {
            drop(child.stdin.take());
            child.wait().unwrap();
        }
    }
}
