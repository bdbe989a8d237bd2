"""Between characters and token ids: chat templates, tokenizers, incremental detokenisation, stop strings.

One prompt's way through this room: messages become one text (`chat`), the text becomes token ids (`tokenizer`), and
each generated id becomes text again as soon as its characters are complete (`stream`).

Refuses to know: models, requests, files other than tokenizer.json (a GGUF's metadata arrives as a plain mapping).
Specs: TEXT. Next: `ferrum.text.chat`.
"""
