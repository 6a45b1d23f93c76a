"""How other projects name the arrays of an EfficientNet. One module per naming scheme."""
