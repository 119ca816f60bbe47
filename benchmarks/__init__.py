"""Programs that measure: ``python -m benchmarks.run suite=...``. The installed library imports none."""
