"""`python -m bench`, and `accelerate launch -m bench`: the command `bench`."""

from gammabench import main

if __name__ == "__main__":
    main()
