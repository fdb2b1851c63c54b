//! Programs that show aioq: one file per idea in `examples/`, and the worker binary `demo` in
//! `src/bin`.
//!
//! Every program stands alone, as a user's would, so this library is empty. It compiles the
//! examples of the pages that need more crates than `aioq` itself has.

#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../README.md")]
    mod readme {}

    #[doc = include_str!("../../aioq-nats/README.md")]
    mod nats {}

    #[doc = include_str!("../../aioq/src/guide/getting_started.md")]
    mod getting_started {}

    #[doc = include_str!("../../aioq/src/guide/deploy.md")]
    mod deploy {}

    #[doc = include_str!("../../aioq/src/guide/coming_from.md")]
    mod coming_from {}
}
