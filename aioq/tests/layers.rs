//! The layers of the crate: a module uses only modules of its own layer or below.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

/// From the bottom up. Modules of one layer may use each other.
const LAYERS: &[&[&str]] = &[
    &["error", "fault", "sync", "time"],
    &["codec"],
    &["message"],
    &["broker", "store"],
    &["wire"],
    &["backend", "bench"],
    &["memory"],
    &[
        "bulk",
        "cancel",
        "client",
        "dead_letters",
        "events",
        "jobs",
        "queues",
        "states",
        "workers",
        "context",
        "run",
        "task",
    ],
    &["registry"],
    &["middleware"],
    &["worker"],
    &["app"],
    &["cli", "testing", "guide"],
];

/// Uses upwards that are meant: what, and why.
const MEANT: &[(&str, &str)] = &[
    // An error is about a job, and tells its id; a span in a constructor is text or a `Duration`.
    ("error", "message"),
    // An app carries the commands that a program adds to its command line.
    ("app", "cli"),
];

fn layer(module: &str) -> usize {
    let layer = LAYERS.iter().position(|layer| layer.contains(&module));
    layer.unwrap_or_else(|| panic!("module `{module}` has no layer: add it to the list"))
}

fn sources(directory: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, found),
            false if path.extension().is_some_and(|extension| extension == "rs") => found.push(path),
            false => {}
        }
    }
}

/// Names after `crate::` in the code of a file, its tests and comments left out.
fn uses(text: &str) -> impl Iterator<Item = String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or(text);
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let names: Vec<String> = lines
        .flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
        .collect();
    names.into_iter()
}

#[test]
fn a_module_uses_only_layers_below_its_own() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 40, "the sources are found");
    let mut wrong = Vec::new();
    for file in files {
        let relative = file.strip_prefix(&root).unwrap();
        let module = relative.iter().next().unwrap().to_string_lossy().replace(".rs", "");
        if module == "lib" {
            continue;
        }
        for used in uses(&fs::read_to_string(&file).unwrap()) {
            let is_module = LAYERS.iter().any(|layer| layer.contains(&used.as_str()));
            let meant = MEANT.contains(&(module.as_str(), used.as_str()));
            if is_module && layer(&used) > layer(&module) && !meant {
                wrong.push(format!("{} uses crate::{used}", relative.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
