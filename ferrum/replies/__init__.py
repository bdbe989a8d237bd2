"""What a model says, taken apart: reasoning, content, calls of tools.

A model writes one text. Families of models mark in it what is thought and what calls a tool, each in its own way: a
format. `formats` finds out which ones a model has; a parser takes text as it comes and gives parts of a reply.

Refuses to know: tokens, requests, HTTP. Specs: REPLY. Next: `ferrum.replies.reply`.
"""
