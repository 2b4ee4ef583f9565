"""mutmut, with eyes for functions below a decorator. A script: it must not import what it mutates.

mutmut 3 passes over every decorated function, since a copy of one could register twice or be no
function. Here that would leave out `merge`, `unmerge`, `claim` and all that runs in a transaction.
So the copies are made bare, and the decorators stay where mutmut switches between the copies.
"""

from collections.abc import Iterable
from typing import Any

import libcst as cst
from mutmut import __main__ as mutmut
from mutmut.mutation import file_mutation
from mutmut.runners import harness

arrange = file_mutation.function_trampoline_arrangement
skips = file_mutation.MutationVisitor._skip_node_and_children
run_tests = harness.PytestRunner.run_tests
MUTMUTS_OWN = {"staticmethod", "classmethod"}
SUSPICIOUS = 35  # what mutmut calls an end that says nothing


def _is_decorated(function: cst.CSTNode) -> bool:
    if not isinstance(function, cst.FunctionDef):
        return False
    names = {getattr(each.decorator, "value", None) for each in function.decorators}
    return bool(names - MUTMUTS_OWN)


def arrange_decorated(function: cst.FunctionDef, mutants: Iterable[Any], class_name: Any) -> Any:
    """What mutmut makes of the bare function, with the decorators around its switch."""
    if not _is_decorated(function):
        return arrange(function, mutants, class_name)
    bare = function.with_changes(decorators=[])
    declared, (switch, *copies), assigned, names = arrange(bare, mutants, class_name)
    switch = switch.with_changes(decorators=[*function.decorators, *switch.decorators])
    return declared, [switch, *copies], assigned, names


def skips_but_decorated(visitor: Any, node: cst.CSTNode) -> bool:
    """What mutmut leaves alone, but for decorated functions."""
    bare = node.with_changes(decorators=[]) if _is_decorated(node) else node
    return skips(visitor, bare)


def run_what_is_found(runner: Any, **given: Any) -> int:
    """A test that pytest does not find notices nothing: mutmut would count that as noticed."""
    try:
        return run_tests(runner, **given)
    except harness.BadTestExecutionCommandsException:
        return SUSPICIOUS


file_mutation.function_trampoline_arrangement = arrange_decorated
file_mutation.MutationVisitor._skip_node_and_children = skips_but_decorated
harness.PytestRunner.run_tests = run_what_is_found  # type: ignore[method-assign]

if __name__ == "__main__":
    mutmut.cli()
