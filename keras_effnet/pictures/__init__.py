"""From files to arrays: decoding, orientation, crop, lists of photographs, names of classes."""
