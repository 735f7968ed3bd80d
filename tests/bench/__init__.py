"""The figures of docs/performance.md: one module each, driven by scripts/bench."""
