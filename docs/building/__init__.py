"""What the book needs beside Sphinx' own extensions."""
