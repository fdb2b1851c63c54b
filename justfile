# `just` lists the recipes.
_default:
    @just --list

# Compiles everything, with all features.
check:
    cargo check --workspace --all-targets --all-features

# Runs all tests, or those whose names contain FILTER.
test FILTER="":
    cargo test --workspace -- {{FILTER}}

# Builds the documentation; a broken link is an error.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --all-features

# Runs all benchmarks, on a NATS server of their own.
bench:
    cargo bench --workspace

# Formats, then lints.
lint:
    cargo fmt --all
    cargo clippy --workspace --all-targets --all-features -- -D warnings

# All that must pass before a change lands.
ci:
    .ci/run
