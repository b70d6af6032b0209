"""The only reader and writer of AnnData; its modules are named by who asks."""
