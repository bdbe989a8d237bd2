"""The glass box: a real generation recorded step by step, as JSON and as a page."""
