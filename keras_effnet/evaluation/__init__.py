"""How good a classifier is on photographs whose class is known: figures, comparisons, drawings.

Only labels and scores are needed here; `keras_effnet.evaluate` asks a model or a file for them.
"""
