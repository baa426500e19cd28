"""The benchmark suite: every figure that docs/performance.md promises, measured again by one command."""
