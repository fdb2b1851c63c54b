//! The README names the tests that prove what it promises: they are there.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn every_test_that_the_readme_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let promises = readme.split("## What is promised").nth(1).unwrap();
    let promises = promises.split("What is not promised:").next().unwrap();
    let is_name =
        |text: &&str| text.matches('_').count() >= 3 && text.chars().all(|c| c.is_alphanumeric() || c == '_');
    let named: BTreeSet<&str> = promises.split('`').filter(is_name).collect();
    assert!(named.len() >= 20, "the names are found: {named:?}");
    let mut sources = String::new();
    for folder in ["tests/tests", "tests/tests/simulation", "aioq/tests"] {
        for file in fs::read_dir(root.join(folder)).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let missing: Vec<_> = named.iter().filter(|name| !sources.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
}
