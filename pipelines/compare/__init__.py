"""Selections beside each other: what each holds, how much two share, how each covers the pool; as tables, a page and JSON.

It may import `config`, `recipes` and `report`, whose measurements and page it shares.
"""
