"""Selectors: rows in pick order, each with a gain and a reason."""
