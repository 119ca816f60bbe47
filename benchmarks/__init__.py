"""Programs that measure: ``python -m benchmarks.run suite=...``. Nothing of the installed library imports this."""
