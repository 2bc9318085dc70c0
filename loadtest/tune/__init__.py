"""Which settings are best on this machine: a small search, measured through HTTP.

`settings` says what is tried, `choose` what is better, `search` starts and measures it all in the
right order, `report` and `compose` tell what came of it.
"""
