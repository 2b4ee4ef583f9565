"""Mutation testing: how many of mutmut's small changes to the code the tests notice."""
