"""Filters: a smaller pool from a pool."""
