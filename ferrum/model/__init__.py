"""The decoder: one forward pass for the whole Llama family. Next: `ferrum.model.rope`."""
