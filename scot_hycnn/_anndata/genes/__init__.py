"""Genes of measured and predicted cells: the way from the representation, its correction, and changes of genes."""
