"""Integer networks whose weights train: quantization-aware training, pruning, weight clustering."""
