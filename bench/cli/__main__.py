"""`python -m bench.cli`: the command `bench` too."""

from gammabench import main

if __name__ == "__main__":
    main()
