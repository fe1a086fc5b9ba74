"""The columns of the boards, the web page, the terminal and `bench compare`.

A column is one entry in the list of one file: `activations`, `death`, `revival` or
`training`. The entry gives
its title, its meaning for the legend, how its number is read from a record, how the number is
written, and the tables where it stands. The order of the entries is that of the columns.
"""
