"""The SQL catalog over all records: its schema, its content, publishing it and querying it.

May import every other room of `storage`; no room imports it.
"""
