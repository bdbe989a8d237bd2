"""Files of requests: every line answered exactly once, however often the program is stopped meanwhile."""
