"""The command line: `main` has the table of commands, the other files one command each."""
