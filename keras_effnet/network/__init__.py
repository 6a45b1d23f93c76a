"""What a network is, without weights: its table, its variants, what it does to a pixel, its layers."""
