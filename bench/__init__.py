"""How fast the functions are, measured next to one that does nothing."""
