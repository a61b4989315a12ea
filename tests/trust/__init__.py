"""Tries to break the library: chance, faults, odd numbers, hostile input.

Every test run tries a little of it; `make trust` tries all, and writes what it tried to examples/benchmarks/results.
"""
