"""Code without what no figure follows from: layout, comments, docstrings, messages, log lines, guards.

Guards are functions of a module named ``guards`` that are called as a statement of their own: a finished cell has met
none that raised. Nothing but the standard library is imported here: a test runs this file by other Pythons.
"""

from __future__ import annotations

import ast
from typing import final

__all__ = ["bare_tree", "told_of"]


def bare_tree(text: str) -> ast.Module:
    """The code of a module, without that, and without the declaration ``STUDY = ...`` and ``__all__``."""
    return _Bare().visit_Module(ast.parse(text))


def told_of(node: object) -> str:
    """A tree as text, the same by every Python that reads it: ``ast.dump`` is another in each.

    What is empty is left out, since newer Pythons have fields that older ones have not; and how a text is quoted.

    >>> told_of(ast.parse("f(1, u'a')").body[0])
    "(Expr value=(Call args=[(Constant value=1) (Constant value='a')] func=(Name ctx=(Load) id='f')))"
    """
    if isinstance(node, list):
        return f"[{' '.join(map(told_of, node))}]"
    if not isinstance(node, ast.AST):
        return ascii(node)  # which letters `repr` shows is another matter in each, too
    fields = sorted((name, there) for name, there in ast.iter_fields(node) if name != "kind")
    told = [f" {name}={told_of(there)}" for name, there in fields if there is not None and there != []]
    return f"({type(node).__name__}{''.join(told)})"


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
