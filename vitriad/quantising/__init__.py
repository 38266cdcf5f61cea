"""Programs of 8-bit integers, made from float32 ones by the quantiser of their engine: a module for each format."""
