"""The docs as a site: `make docs`. `hooks.py` is called by mkdocs, as mkdocs.yml says."""
