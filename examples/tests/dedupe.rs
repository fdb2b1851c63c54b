//! `dedupe` against a truth that this test computes for itself.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use support::{Ran, example, run, run_in};
use tempfile::TempDir;

fn dedupe(path: &Path) -> Ran {
    run(example("dedupe"), [path.as_os_str(), "--json".as_ref()])
}

/// A tree with everything that a walk could trip over.
fn tree() -> TempDir {
    let dir = TempDir::new().unwrap();
    let file = |path: &str, content: &[u8]| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    let large: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    file("one", b"same");
    file("deep/er/still/two", b"same");
    file(".hidden/.three", b"same");
    file("a-b", b"other");
    file("a/b", b"other");
    file("a/lonely", b"lonely");
    file("empty", b"");
    file("a/.empty", b"");
    file("a/large", &large);
    file("deep/large", &large);
    file("deep/almost", &large[1..]);
    file(".gitignore", b"ignored\n");
    file("ignored", b"ignored\n");
    file("odd name, 'quoted' \"twice\"\n\u{e9}", b"other");
    fs::create_dir(dir.path().join("nothing")).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::symlink;

        symlink("one", dir.path().join("link")).unwrap();
        symlink("nowhere", dir.path().join("dangling")).unwrap();
        symlink("..", dir.path().join("deep/up")).unwrap();
        // Reading it would wait for ever.
        assert!(
            std::process::Command::new("mkfifo").arg(dir.path().join("pipe")).status().unwrap().success()
        );
    }
    dir
}

/// Regular files below `path` by content, as `sha256sum` would find them.
fn truth(path: &Path) -> (u64, Vec<Vec<String>>, u64) {
    let mut by_content = BTreeMap::<[u8; 32], Vec<(String, u64)>>::new();
    collect(path, &mut by_content);
    let files = by_content.values().map(Vec::len).sum::<usize>() as u64;
    let mut groups = Vec::new();
    let mut reclaimable = 0;
    for mut same in by_content.into_values().filter(|same| same.len() > 1) {
        same.sort();
        reclaimable += same[0].1 * (same.len() as u64 - 1);
        groups.push(same.into_iter().map(|(path, _)| path).collect::<Vec<_>>());
    }
    groups.sort();
    (files, groups, reclaimable)
}

fn collect(directory: &Path, by_content: &mut BTreeMap<[u8; 32], Vec<(String, u64)>>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let kind = path.symlink_metadata().unwrap().file_type();
        if kind.is_dir() {
            collect(&path, by_content);
        } else if kind.is_file() {
            let content = fs::read(&path).unwrap();
            let same = by_content.entry(Sha256::digest(&content).into()).or_default();
            same.push((path.to_str().unwrap().to_owned(), content.len() as u64));
        }
    }
}

/// The report without the time it took, which is checked here.
fn timeless(ran: &Ran) -> Value {
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let mut report = ran.json();
    let seconds = report.as_object_mut().unwrap().remove("seconds");
    assert!(seconds.as_ref().and_then(Value::as_f64).is_some_and(|seconds| seconds > 0.0), "{seconds:?}");
    report
}

#[test]
fn the_groups_are_those_of_sha256() {
    let dir = tree();
    let (files, groups, reclaimable) = truth(dir.path());
    assert_eq!((files, groups.len()), (14, 5));
    let report = timeless(&dedupe(dir.path()));
    let expected = json!({"files": files, "failed": [], "groups": groups, "reclaimable_bytes": reclaimable});
    assert_eq!(report, expected);
}

#[test]
fn paths_begin_with_the_one_that_was_given() {
    let dir = tree();
    let report =
        |path: &str| run_in(dir.path(), example("dedupe"), [path, "--json"]).json()["groups"].clone();
    assert_eq!(report("a"), json!([]));
    assert!(report(".").as_array().unwrap().contains(&json!(["./a/.empty", "./empty"])));
    assert!(
        report("./deep/..").as_array().unwrap().contains(&json!(["./deep/../a/.empty", "./deep/../empty"]))
    );
}

#[test]
fn a_single_file_is_a_tree_of_one() {
    let dir = tree();
    let report = timeless(&dedupe(&dir.path().join("one")));
    assert_eq!(report, json!({"files": 1, "failed": [], "groups": [], "reclaimable_bytes": 0}));
}

#[test]
fn many_more_files_than_are_under_way_at_once() {
    let dir = TempDir::new().unwrap();
    for number in 0..10_000 {
        fs::write(dir.path().join(format!("{number:05}")), (number / 2).to_string()).unwrap();
    }
    let (files, groups, reclaimable) = truth(dir.path());
    let report = timeless(&dedupe(dir.path()));
    let expected = json!({"files": files, "failed": [], "groups": groups, "reclaimable_bytes": reclaimable});
    assert!(report == expected, "{} groups", report["groups"].as_array().unwrap().len());
}

/// Names so long that the whole path is longer than the system takes: nobody can open it, not even
/// root. The path of a directory that still can be read; in it a file and a directory that cannot.
#[cfg(target_os = "linux")]
fn out_of_reach(root: &Path) -> PathBuf {
    const NAME: usize = 200;
    let depth = (4096 - 1 - root.as_os_str().len()) / (NAME + 1);
    let parents: Vec<String> = (0..depth).map(|level| level.to_string()).collect();
    let deepest = root.join(parents.join("/"));
    fs::create_dir_all(deepest.join("directory")).unwrap();
    fs::write(deepest.join("file"), "out of reach").unwrap();
    // From the bottom up, while the paths are short.
    let long = |short: &str| format!("{short:x>NAME$}");
    let rename =
        |parent: &Path, short: &str| fs::rename(parent.join(short), parent.join(long(short))).unwrap();
    rename(&deepest, "file");
    rename(&deepest, "directory");
    for level in (0..depth).rev() {
        rename(&root.join(parents[..level].join("/")), &parents[level]);
    }
    root.join(parents.iter().map(|short| long(short)).collect::<Vec<_>>().join("/"))
}

#[test]
#[cfg(target_os = "linux")]
fn what_cannot_be_read_is_reported_and_the_rest_goes_on() {
    let dir = TempDir::new().unwrap();
    for name in ["a", "b"] {
        fs::write(dir.path().join(name), "same").unwrap();
    }
    let deepest = out_of_reach(dir.path());
    let ran = dedupe(dir.path());
    let report = timeless(&ran);
    let name = |short: &str| deepest.join(format!("{short:x>200}")).to_str().unwrap().to_owned();
    let why = "File name too long (os error 36)";
    let failed = json!([{"path": name("directory"), "error": why}, {"path": name("file"), "error": why}]);
    let groups = json!([[dir.path().join("a"), dir.path().join("b")]]);
    // The directory is no file, so it is not counted.
    assert_eq!(report, json!({"files": 3, "failed": failed, "groups": groups, "reclaimable_bytes": 4}));
    assert!(ran.err.contains(&name("directory")) && ran.err.contains(&name("file")), "{ran:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_file_that_opens_and_cannot_be_read_has_failed() {
    // The memory of the process itself: nothing is at its beginning.
    let report = timeless(&dedupe(Path::new("/proc/self/mem")));
    let failed = json!([{"path": "/proc/self/mem", "error": "Input/output error (os error 5)"}]);
    assert_eq!(report, json!({"files": 1, "failed": failed, "groups": [], "reclaimable_bytes": 0}));
}

#[test]
#[cfg(target_os = "linux")]
fn names_that_are_not_text_are_read_as_they_are_and_printed_as_well_as_possible() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join(OsStr::from_bytes(b"n\xff")), "same").unwrap();
    fs::write(dir.path().join("n"), "same").unwrap();
    let ran = dedupe(dir.path());
    let groups = json!([[dir.path().join("n"), dir.path().join("n\u{fffd}")]]);
    assert_eq!(timeless(&ran), json!({"files": 2, "failed": [], "groups": groups, "reclaimable_bytes": 4}));
    assert!(ran.err.contains("not in UTF-8"), "{ran:?}");
}

#[test]
fn without_a_path_that_exists_nothing_is_done() {
    let dir = tree();
    let refused = |args: &[&str], word: &str| {
        let ran = run_in(dir.path(), example("dedupe"), args);
        assert_eq!((ran.code, &*ran.out), (Some(2), ""), "{ran:?}");
        assert!(ran.err.contains(word), "{ran:?}");
    };
    refused(&[], "<PATH>");
    refused(&["--json"], "<PATH>");
    refused(&["nope"], "nope: No such file");
    #[cfg(unix)]
    refused(&["pipe"], "neither a directory nor a regular file");
}

#[test]
fn people_get_text_with_the_speed() {
    let dir = tree();
    let ran = run_in(dir.path(), example("dedupe"), ["."]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(
        ran.out.contains("3 files of 4 B\n  ./.hidden/.three\n  ./deep/er/still/two\n  ./one\n"),
        "{ran:?}"
    );
    let last = ran.lines().pop().unwrap().to_owned();
    assert!(last.starts_with("14 files, 0 failed, 5 groups, ") && last.ends_with(" jobs/s"), "{last}");
}

#[test]
fn the_worker_is_part_of_the_program() {
    let ran = run(example("dedupe"), ["tasks", "--json"]);
    assert_eq!((ran.code, &ran.json()[0]["name"]), (Some(0), &json!("dedupe.hash")), "{ran:?}");
    assert_eq!(run(example("dedupe"), ["worker", "--burst", "--memory"]).code, Some(0));
}
