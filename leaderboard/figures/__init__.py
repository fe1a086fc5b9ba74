"""The figures of the boards: what they show, how it is drawn, and the files."""
