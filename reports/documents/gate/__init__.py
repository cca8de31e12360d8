"""The gate's documents."""
