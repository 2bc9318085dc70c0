"""How fast Sightline is, beside what else could be done with the same machine and model.

`contenders` says who is measured, `photographs` with what, `generator` puts the load on, `usage`
reads what a tree of processes uses, `rounds` is the order of it all, `report` the table,
`promises` what has to be shown, `plot` the picture; `servers` holds the other contenders and
`scale` asks how the broker's cost grows. Interpreters of other environments run some of `servers`.
"""
