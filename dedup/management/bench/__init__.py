"""Benchmarks: `manage.py bench NAME`. Each module has `add_arguments` and `run`."""
