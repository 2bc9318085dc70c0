"""How the broker's cost grows: what `make bench-scale` measures.

`peers` are replicas that only take their time, `clients` those who ask them, `forwarder` the
yardstick, `stage` starts and ends them all, `theory` what queues should do, `report` what is told.
Both sides speak `wire` over ZeroMQ directly, so that what is measured is the broker alone.
"""
