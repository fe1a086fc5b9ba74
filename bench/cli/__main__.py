"""`python -m bench.cli`, and `accelerate launch -m bench.cli`: the command `bench`."""

from bench.cli.main import main

main()
