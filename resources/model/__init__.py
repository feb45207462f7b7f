"""A causal language model: loading, answering, scoring, here or on a server."""
