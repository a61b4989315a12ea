"""From what a layer saw to the gradients of its weights, row by row."""
