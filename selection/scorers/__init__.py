"""Scorers: one number a row, higher = take first."""
