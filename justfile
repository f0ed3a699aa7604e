# Short names for what is typed often. `just check` is what an automated check runs.

# Everything that must be green before review.
check:
    ./scripts/test

# Format, lints and the quick tests: a minute, for in between.
quick:
    cargo fmt --all
    cargo clippy --workspace --all-targets --locked -- -D warnings
    cargo nextest run --workspace --locked --profile fast

# A manager and agents on this machine.
dev *ARGS:
    cargo run --release -- dev {{ARGS}}

# Boots a small Debian with the real units. Needs root.
nspawn:
    cargo build --workspace --bins
    cargo nextest run --profile ci -E 'test(/^nspawn::/)'

# The house rules only.
tidy:
    cargo nextest run -E 'test(/^tidy::/)'

# The figures of docs/performance.md.
bench *ARGS:
    cargo run --release -p paprika-bench -- {{ARGS}}
