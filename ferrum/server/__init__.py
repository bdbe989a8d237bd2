"""HTTP around the OpenAI API."""
