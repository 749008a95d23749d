"""What holds for every test and doctest."""

from hypothesis import settings

# Time says nothing here: a first example imports a library or compiles a loop, and machines have other work to do.
settings.register_profile("winnow", deadline=None)
settings.load_profile("winnow")

# What pytest must not import when it looks for doctests: importing it loads a project, as tests/pipelines/test_definitions.py does.
collect_ignore = ["pipelines/definitions.py"]
