"""Mutation testing: small changes in all lines, for each of which at least one test should fail.

`python -m meta_tests.mutants` lets mutmut (https://mutmut.readthedocs.io) make the changes in a copy of the tree and
run the tests that pass through them. `rooms` says what is changed and who judges, `tool` speaks with mutmut, `review`
reads `survivors.toml`, which says of survivors why they may live, `table` writes `RESULTS.md`. Specs: PROOF.
"""
