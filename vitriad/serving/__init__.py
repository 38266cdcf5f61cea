"""The HTTP service of `vitriad serve`: models behind queues, and the protocols that reach them."""
