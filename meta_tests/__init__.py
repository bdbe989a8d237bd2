"""Tests of the tests: faults are planted in the package, one at a time, and the tests of its room must find each.

`python -m meta_tests` does it: `fault` says what a fault is, `faults/` lists them by room, `tree` plants one in a copy
of the source, `judge` runs the tests there, `results` writes down which test found it first. `backends/` holds faulty
backends, which the conformance suite has to find. Specs: PROOF.
"""
