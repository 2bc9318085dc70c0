"""The chaos drill: real clients ask while replicas and the broker are killed, and all is counted.

`pictures` is what the clients send, `clients` who they are, `ledger` the account of what they
got; `timetable` says what breaks when, `processes` and `compose` break it; `drill` is the story.
"""
