"""How the parts of Sightline tell what they do: `logs` lines, `tracing` and `spans` traces."""
