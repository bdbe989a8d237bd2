"""The property suite of the tensor protocol, for this project's backends and for anyone's.

    pytest --pyargs ferrum.conformance --backend package.module:Class

Owns: independent float64 definitions of every operation (`oracles`), how much a result may differ from them
(`tolerances`), the inputs (`strategies`), and one property per promise of specs/OPS.md (`test_*`).
Refuses to know: how any backend works inside, models, files.
Specs: OPS. Next: `ferrum.conformance.oracles`.
"""
