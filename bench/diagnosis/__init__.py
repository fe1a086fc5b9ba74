"""A verdict on anybody's activations: `bench diagnose` and `bench.diagnose`."""
