"""Run any function many times on these GPUs; knows nothing of language models."""
