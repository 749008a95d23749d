"""Files that a user names: finding, opening and reading them, record by record, whatever their format and damage.

May import the base of `storage`.
"""
