"""Integer and half-precision files."""
