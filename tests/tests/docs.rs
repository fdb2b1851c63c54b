//! The tests and files that the documentation names exist.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn every_test_that_the_guarantees_name_is_there() {
    let root = root();
    let guarantees = fs::read_to_string(root.join("aioq/src/guide/guarantees.md")).unwrap();
    let promises = guarantees.split("# What is not promised").next().unwrap();
    let is_name =
        |text: &&str| text.matches('_').count() >= 3 && text.chars().all(|c| c.is_alphanumeric() || c == '_');
    let named: BTreeSet<&str> = promises.split('`').filter(is_name).collect();
    assert!(named.len() >= 20, "the names are found: {named:?}");
    let folders = ["tests/tests", "aioq/tests", "aioq/src/schedules"];
    let sources: String = folders.iter().map(|folder| sources(&root.join(folder))).collect();
    let missing: Vec<_> = named.iter().filter(|name| !sources.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
}

#[test]
fn every_file_that_a_page_names_is_there() {
    const FOLDERS: [&str; 6] = [".ci/", "aioq/", "aioq-macros/", "aioq-nats/", "examples/", "tests/"];
    let is_path = |text: &&str| {
        FOLDERS.iter().any(|folder| text.starts_with(folder))
            && text.chars().all(|c| c.is_alphanumeric() || "./_-".contains(c))
    };
    for page in ["README.md", "DESIGN.md", "CONTRIBUTING.md"] {
        let text = fs::read_to_string(root().join(page)).unwrap();
        let named: BTreeSet<&str> = text.split(['`', '(', ')', '#']).filter(is_path).collect();
        assert!(named.len() >= 5, "the paths in {page} are found: {named:?}");
        let missing: Vec<_> = named.iter().filter(|path| !root().join(path).exists()).collect();
        assert!(missing.is_empty(), "{page} names files that do not exist: {missing:?}");
    }
}

/// The folder of the workspace.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// All Rust files in a folder, and in the folders in it.
fn sources(folder: &Path) -> String {
    let mut sources = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources.push_str(&self::sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push_str(&fs::read_to_string(path).unwrap());
        }
    }
    sources
}
