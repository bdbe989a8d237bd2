"""Memory for keys and values: blocks, which sequences hold them, and where they lie. Next: `ferrum.kv.eviction`."""
