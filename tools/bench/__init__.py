"""Benchmarks: `python3 run.py bench NAME` runs `tools/bench/NAME.py`, whose `run(argv)` returns rows.

Rules: ratios within one run, medians of at least five, both sides warmed up, no number without its spread.
`tools/bench/report.py` prints the rows and writes them for machines.
"""
