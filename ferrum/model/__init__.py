"""The decoder: one forward pass for every family. Next: `ferrum.model.rope`."""
