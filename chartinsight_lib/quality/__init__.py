"""How true what is held is: holes and completeness (`check`), mending (`repair`), stored bars against rules (`verify`), and
one source against another (`compare`).

`states`, `intraday`, `rules` and `comparison` are pure; the others read and write the database.
"""
