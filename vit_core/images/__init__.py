"""Images: from a file or an array to what a model takes, bit for bit as transformers does it."""
