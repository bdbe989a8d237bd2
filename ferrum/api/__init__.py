"""The OpenAI API as Python functions: request bodies in, response bodies out, without HTTP."""
