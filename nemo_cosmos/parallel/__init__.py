"""How one network is laid out over many processes."""
