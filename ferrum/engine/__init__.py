"""The loop that turns prompts into completions. Next: `ferrum.engine.runner`."""
