//! The layers of the crate: a module uses only modules of its own layer or below.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

/// Layers from the bottom up. Modules of one layer may use each other.
const LAYERS: &[&[&str]] = &[
    // The ground floor: an error carries a time, and a time that cannot be read is an error.
    &["error", "fault", "process", "sync", "text", "time"],
    &["codec"],
    &["message"],
    &["broker", "store"],
    &["wire"],
    // A backend brings the place where the benchmark runs, and that place is made of a backend.
    &["backend", "bench"],
    &["memory"],
    &["dependencies", "unique"],
    &["bulk", "states", "task"],
    &["client"],
    &["workers"],
    &["cancel"],
    &["run"],
    &["context"],
    &["queues"],
    &["jobs"],
    &["dead_letters", "events", "kiq"],
    &["registry"],
    &["schedules"],
    &["middleware"],
    &["worker"],
    &["app"],
    &["cli", "guide", "testing"],
];

/// Uses of a layer above, each with its reason.
const EXCEPTIONS: &[(&str, &str)] = &[
    // An error about a job carries the id of the job.
    ("error", "message"),
];

fn layer(module: &str) -> usize {
    let layer = LAYERS.iter().position(|layer| layer.contains(&module));
    layer.unwrap_or_else(|| panic!("module `{module}` has no layer: add it to the list"))
}

fn sources(directory: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
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
            let is_exception = EXCEPTIONS.contains(&(module.as_str(), used.as_str()));
            if is_module && layer(&used) > layer(&module) && !is_exception {
                wrong.push(format!("{} uses crate::{used}", relative.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
