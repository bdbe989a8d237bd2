"""Memory for keys and values: blocks, who may have one, and where they lie. Next: `ferrum.kv.eviction`."""
