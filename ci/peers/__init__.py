"""Other libraries' training loops, each in its own environment, for `ci/bench_step.py` to time."""
