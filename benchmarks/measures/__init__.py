"""One file a measure; the rule of each stands at its head, and ``benchmarks/suites.py`` lists them."""
