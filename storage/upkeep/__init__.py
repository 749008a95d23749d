"""What keeps a store in order for months: what may be removed, and what goes on request.

May import every other room of `storage`.
"""
