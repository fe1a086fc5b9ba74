"""A verdict on any activations: `bench diagnose` and `bench.diagnose`."""
