"""The tensor protocol: the primitives that a backend must write, and the compositions that it inherits.

The names of dimensions in every shape comment of the project. Other words (slot, block, step, …) are defined in
`docs/glossary.md`. A step computes some tokens of each of its sequences (`ferrum.tensor.batch`).

| word | meaning |
|---|---|
| tokens | tokens of one step, of all sequences, packed one after the other |
| sequences | sequences of which the step computes tokens |
| rows | tokens whose logits are computed; of a weight: its rows, which are output features |
| columns | of a weight: its columns, which are input features |
| hidden | width of the residual stream |
| intermediate | width inside the feed-forward network |
| heads, kv_heads | query heads; key/value heads, each shared by heads / kv_heads query heads |
| head_dim | width of one head |
| rotary_dim | leading dimensions of a head that rotary embedding rotates |
| blocks, block_size | blocks of the pool; positions in a block |
| context | positions of a sequence whose keys and values are stored, those of this step included |
| count | new tokens of one sequence in this step: the last `count` positions of its context |
| group | query heads that share a key/value head: heads / kv_heads |
| vocab | entries of the vocabulary |
| experts, chosen | experts of a mixture; experts to which one token goes |

Next: `ferrum.tensor.ops`.
"""
