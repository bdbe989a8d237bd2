"""The text of a model, split into its parts: reasoning, content, tool calls.

A model writes one text. Each family of models has its own marks for reasoning and for calls: a format. `formats` finds
the formats of a model; a parser takes text as it comes and returns the parts of a reply.

Refuses to know: tokens, requests, HTTP.
Specs: REPLY. Next: `ferrum.replies.reply`.
"""
