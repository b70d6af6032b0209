"""What an evaluation reads: held-out cells, groups, predictions of others, weights of cells, the cells of a screen."""
