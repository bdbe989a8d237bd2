"""From logits to a token. Next: `ferrum.sample.history`."""
