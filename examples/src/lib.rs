//! Programs that show aioq: see `examples/`, one file per idea, and the worker binary `demo` in `src/bin`.
//!
//! The library itself is empty: every program here stands alone, as a user's would.
