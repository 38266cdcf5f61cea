"""The front door: the command line, Auto classes, `load` and `convert`."""
