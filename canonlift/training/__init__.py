"""Training a network on recordings."""
