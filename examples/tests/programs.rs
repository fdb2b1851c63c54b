//! Every example does what it claims: each asserts it, and ends well.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;

use support::{example, run, sources};

macro_rules! programs {
    ($($name:ident),* $(,)?) => {
        const PROGRAMS: &[&str] = &[$(stringify!($name)),*];

        $(
            #[test]
            fn $name() {
                let ran = run(example(stringify!($name)), [""; 0]);
                assert_eq!(ran.code, Some(0), "{ran:?}");
            }
        )*
    };
}

programs!(
    bulk,
    custom_backend,
    flow,
    middleware,
    quickstart,
    retries,
    schedules,
    state,
    testing,
    unique,
    web_server
);

/// Examples that need arguments have tests of their own.
const ELSEWHERE: &[&str] = &["dedupe"];

#[test]
fn every_example_is_run() {
    let stem = |entry: std::fs::DirEntry| entry.path().file_stem().unwrap().to_str().unwrap().to_owned();
    let there: BTreeSet<String> = sources().read_dir().unwrap().map(|entry| stem(entry.unwrap())).collect();
    let run: BTreeSet<String> = PROGRAMS.iter().chain(ELSEWHERE).map(|name| (*name).to_owned()).collect();
    assert_eq!(there, run);
}
