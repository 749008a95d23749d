"""Commands that keep a store in order for months: `winnow pin`, `rollback`, `gc` and `forget`.

The room may import `config`, `recipes`, `exports`, `report` and `stages`.
"""
