"""Would a test notice if this line were another? Mutation testing: small changes everywhere, each judged by the tests.

`python -m meta_tests.mutants` lets mutmut (https://mutmut.readthedocs.io) make the changes in a copy of the tree and
run the tests that pass through them. `rooms` says what is changed and who judges, `tool` speaks with mutmut, `review`
reads `survivors.toml`, which says of survivors why they may live, `table` writes `RESULTS.md`. Specs: PROOF.
"""
