"""Code without what no figure follows from: layout, comments, docstrings, messages, log lines, guards.

Guards are functions of a module named ``guards`` that are called as a statement of their own: a finished cell has met
none that raised.
"""

from __future__ import annotations

import ast
from typing import final

__all__ = ["bare_tree"]


def bare_tree(text: str) -> ast.Module:
    """The code of a module, without that, and without the declaration ``STUDY = ...`` and ``__all__``."""
    return _Bare().visit_Module(ast.parse(text))


@final
class _Bare(ast.NodeTransformer):
    """Takes out what no figure follows from: a finished cell has raised nothing, and nothing reads what was logged."""

    def __init__(self) -> None:
        self._guards: set[str] = set()

    def visit_Raise(self, node: ast.Raise) -> ast.Raise:
        """What is raised may be caught, so its class counts; what it says does not."""
        return ast.Raise(exc=node.exc.func if isinstance(node.exc, ast.Call) else node.exc, cause=None)

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        """Docstrings, lines of the log, and guards."""
        called = node.value.func if isinstance(node.value, ast.Call) else None
        is_logged = isinstance(called, ast.Attribute) and ast.unparse(called.value) == "_log"
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        is_guard = isinstance(called, ast.Name) and called.id in self._guards
        return None if is_logged or is_text or is_guard else node

    def visit_Module(self, node: ast.Module) -> ast.Module:
        """Names for others, the import of guards and the declaration of a study, too."""
        imports = [one for one in node.body if isinstance(one, ast.ImportFrom) and _is_of_guards(one)]
        self._guards = {name.asname or name.name for one in imports for name in one.names}
        left_out = {"STUDY", "__all__"}
        node.body = [one for one in node.body if one not in imports and not _assigned(one) & left_out]
        self.generic_visit(node)
        return node


def _is_of_guards(node: ast.ImportFrom) -> bool:
    return node.module is not None and node.module.split(".")[-1] == "guards"


def _assigned(node: ast.stmt) -> set[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {one.id for one in targets if isinstance(one, ast.Name)}
