"""The root: the only room that wires concrete classes together."""
