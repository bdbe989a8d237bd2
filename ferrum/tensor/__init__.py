"""The tensor protocol: what a backend must write, and everything it is given for that.

The dimension glossary, used in every shape comment of the project:

| word | meaning |
|---|---|
| tokens | packed tokens of one step, over all sequences |
| sequences | sequences that take part in the step |
| rows | tokens whose logits are wanted; also the rows (output features) of a weight |
| columns | input features of a weight |
| hidden | width of the residual stream |
| intermediate | width inside the feed-forward network |
| heads, kv_heads | query heads; key/value heads, each shared by heads / kv_heads query heads |
| head_dim | width of one head |
| rotary_dim | leading dimensions of a head that rotary embedding turns |
| blocks, block_size | blocks in the pool; positions in a block |
| context | positions a sequence has written so far |
| vocab | entries of the vocabulary |
| experts, chosen | experts of a mixture; those that one token goes to |

Next: `ferrum.tensor.ops`.
"""
