"""Structured outputs: schemas, expressions and grammars that an answer must match.

GBNF and Lark are read by `gbnf`, `gbnf_lark` and `lark`; JSON schemas by the modules `schema…`; `grammar` makes of each
the mask of allowed tokens that the sampler applies.
Next: `ferrum.sample.grammars.refusals`.
"""
