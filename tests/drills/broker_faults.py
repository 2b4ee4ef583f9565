"""Redis dies, forgets, hangs, or was never there."""
