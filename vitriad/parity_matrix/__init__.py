"""The matrix of `vitriad parity`: its cases, the processes that compute them, and the report."""
