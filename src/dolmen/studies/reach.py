"""Which code a study's run can reach: read from the sources, so that nobody keeps a list of it.

Beginning with ``run`` and ``prepare``, each name that a definition reads is looked up: in its own module, or where its
import leads, through the interfaces (``.pyi``) of folders that import lazily and into imports within functions. What is
reached is a set of *definitions*: functions, classes and constants, without layout, comments, docstrings, messages, log
lines and guards. So a new function beside those that a study uses changes nothing, and a new import counts by itself.

Three things a reader would not guess:

* The lists of models and of data sets name all of them. Of their entries those count whose name the study's own code
  says in a text, such as ``"din"``, or that are among the study's data and cases.
* What the probe of ``machinery`` stands for is not read; that it was reached is told.
* ``LEFT_OUT`` is not read either, for the reason that stands beside each.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeGuard, final

from dolmen.studies.bare import bare_tree, told_of
from dolmen.studies.machinery import BESIDE, MACHINERY
from dolmen.studies.study import Study

__all__ = ["LEFT_OUT", "Definition", "Reach", "reach_of", "reach_of_study"]

_PACKAGE: Final = Path(__file__).resolve().parents[1]

LEFT_OUT: Final[Mapping[str, str]] = {
    "dolmen.errors": "a finished cell has raised nothing",
    "dolmen.telemetry": "no figure follows from log lines and metrics",
    "dolmen.datasets.sources": "where files lie; what is read is checked by its checksum, or by its counts alone",
    "dolmen.training.snapshot": "it brings back the bytes that were kept, or fails",
    "dolmen.checksums": "they tell whether a file is whole",
    "dolmen.unfinished": "it names files that are being written",
    "dolmen.lineage": "it names courses of learning",
    "dolmen.training.specimens": "it writes down examples that nothing is learned from",
    "dolmen.training.progress": "it shows how far a run is",
}
"""Modules and folders that no figure follows from, and why. Modules named ``guards`` are left out, too."""

_LISTS: Final = {("dolmen.models.registry", "_MODELS"), ("dolmen.datasets.registry", "_ENTRIES")}
"""The lists of which only those entries count that a study names."""

_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_COMPREHENSIONS: Final = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@final
@dataclass(frozen=True, order=True)
class Definition:
    """A name at the top level of a module. ``""``: statements that give no name and run with the import."""

    module: str
    name: str


@final
@dataclass(frozen=True)
class Reach:
    """What a run can reach.

    Args:
        code: of each definition, its code and what its names lead to, as text.
        machinery: whether anything that the probe stands for is among it.
    """

    code: Mapping[Definition, str]
    machinery: bool

    @property
    def modules(self) -> list[str]:
        """The modules of which anything is reached."""
        return sorted({one.module for one in self.code})

    @property
    def fingerprint(self) -> str:
        """A checksum of the code, as 16 hex digits; the same on every machine, by whatever Python."""
        digest = hashlib.blake2b(digest_size=8)
        for one, code in self.code.items():
            digest.update(f"{one.module} {one.name}\n{code}\n".encode())
        return digest.hexdigest()


def reach_of_study(study: Study) -> Reach:
    """What ``run`` and ``prepare`` can reach, and what ``stands_on`` names.

    Raises:
        ValueError: ``stands_on`` names what is no module.
    """
    roots: list[Callable[..., Any]] = [one for one in (study.run, study.prepare) if one is not None]
    names = {*study.data, *study.full.cases, *study.quick.cases}
    return reach_of(roots, names=names, also=study.stands_on)


def reach_of(roots: Iterable[Callable[..., Any]], *, names: Iterable[str] = (), also: Iterable[str] = ()) -> Reach:
    """All that ``roots`` lead to.

    Args:
        roots: functions. Of one that is no top-level function of a module, the whole module counts.
        names: entries of the lists that are used, beside those that the code of studies says.
        also: modules (``dolmen.compute``) and definitions (``dolmen.compute:ON_CPU``) that no import leads to.

    Raises:
        ValueError: one of ``also`` is not there.
    """
    walk = _Walk(names)
    for root in roots:
        name = getattr(root, "__qualname__", "")
        walk.also(f"{root.__module__}:{name}" if name in _module(root.__module__).bodies else root.__module__)
    for place in also:
        walk.also(place)
    return walk.done()


@final
class _Walk:
    """What is still to be looked at, and what was found."""

    def __init__(self, names: Iterable[str]) -> None:
        self._texts = set(names)
        self._code: dict[Definition, str] = {}
        self._to_do: list[Definition] = []
        self._entries: dict[Definition, ast.expr] = {}
        self._is_machinery = False

    def go(self, wanted: Definition) -> str:
        """Look at a definition, now or later. Returns how the code that leads there tells it."""
        if _is_in(wanted.module, MACHINERY):
            self._is_machinery = True
        elif wanted not in self._code and not _is_in(wanted.module, LEFT_OUT):
            self._code[wanted] = ""
            self._to_do.append(wanted)
            if wanted.name:
                self.go(Definition(wanted.module, ""))
        return f"{wanted.module}:{wanted.name}"

    def also(self, place: str) -> None:
        """Look at a module, or at one definition of it."""
        module, _, name = place.partition(":")
        if not name:
            self.whole(module)
        elif name in _module(module).bodies:
            self.go(Definition(module, name))
        else:
            raise ValueError(f"a study stands on {place!r}, and {module} defines no {name}")

    def whole(self, module: str) -> str:
        """Look at everything in a module."""
        for name in ("", *_module(module).bodies, *_module(module).exports):
            self._lookup(module, name)
        return f"{module}:*"

    def done(self) -> Reach:
        """Look at all there is to look at."""
        while self._to_do or self._named_entries() or self._beside_machinery():
            if self._to_do:
                wanted = self._to_do.pop()
                module = _module(wanted.module)
                if (wanted.module, wanted.name) in _LISTS:
                    self._keep_entries(wanted, module)
                else:
                    self._read(wanted, module, module.bodies.get(wanted.name, ()))
        return Reach(code=dict(sorted(self._code.items())), machinery=self._is_machinery)

    def _beside_machinery(self) -> bool:
        """Once the machinery is reached, look at what it leads to and the probe does not show."""
        if self._is_machinery:
            for place in BESIDE:
                self.also(place)
        return bool(self._to_do)

    def _read(self, wanted: Definition, module: _Module, nodes: Iterable[ast.AST]) -> None:
        leads: set[str] = set()
        read = [_read(node) for node in nodes]
        for one in read:
            for chain in one.chains:
                leads.update(self._chain(wanted.module, module, chain))
            if not _is_ours(wanted.module) or _is_in(wanted.module, ("dolmen.studies",)):
                self._texts.update(one.texts)
        code = "\n".join(one.code for one in read)
        self._code[wanted] = f"{code}\n-> {' '.join(sorted(leads - {f'{wanted.module}:{wanted.name}'}))}"

    def _chain(self, name: str, module: _Module, chain: Sequence[str]) -> Iterator[str]:
        """Where ``a.b.c``, read in a module, leads to."""
        first, *rest = chain
        if first in module.bodies:
            yield self.go(Definition(name, first))
        for source, imported in module.imports.get(first, ()):
            yield self._follow(source, rest if imported is None else [imported, *rest])

    def _follow(self, module: str, names: Sequence[str]) -> str:
        """From a module on, through its submodules, to a definition."""
        if _file_of(module) is None:
            return ".".join((module, *names[:1]))  # not ours: torch, or a part of the standard library
        if _is_in(module, MACHINERY) or _is_in(module, LEFT_OUT):
            return self.go(Definition(module, names[0] if names else ""))
        if not names:
            return self.whole(module)
        if _file_of(f"{module}.{names[0]}") is not None:
            return self._follow(f"{module}.{names[0]}", names[1:])
        return self._lookup(module, names[0])

    def _lookup(self, module: str, name: str) -> str:
        """A name of a module, wherever it is defined."""
        found = _module(module)
        if name in found.bodies or not name:
            return self.go(Definition(module, name))
        leads = [*found.exports.get(name, ()), *found.imports.get(name, ())]
        if leads:
            return " ".join(self._follow(source, [] if imported is None else [imported]) for source, imported in leads)
        return self.go(Definition(module, ""))  # made while it runs, such as ``__version__`` of a package

    def _keep_entries(self, wanted: Definition, module: _Module) -> None:
        (node,) = module.bodies[wanted.name]
        (comprehension,) = (one for one in ast.walk(node) if isinstance(one, ast.DictComp))
        listed = comprehension.generators[0].iter
        assert isinstance(listed, ast.Tuple)
        for number, entry in enumerate(listed.elts):
            self._entries[Definition(wanted.module, f"{wanted.name} {number}")] = entry

    def _named_entries(self) -> bool:
        """Read those entries of lists that are named by now; whether there was one."""
        named = [one for one, entry in self._entries.items() if _names_of(one.module, entry) & self._texts]
        for one in named:
            entry = self._entries.pop(one)
            told = Definition(one.module, ast.unparse(entry) if isinstance(entry, ast.Starred) else _told(entry))
            self._code[told] = ""
            self._read(told, _module(one.module), [entry])
        return bool(named)


@final
@dataclass(frozen=True)
class _Module:
    """A module's top level.

    Args:
        bodies: what defines each name; ``""``: statements that define none.
        imports: where each imported name comes from, within functions too: a module, and its name there or ``None``.
        exports: the same for what a folder gives away by its ``__init__.pyi``.
    """

    bodies: Mapping[str, tuple[ast.stmt, ...]]
    imports: Mapping[str, tuple[tuple[str, str | None], ...]]
    exports: Mapping[str, tuple[tuple[str, str | None], ...]]


@final
@dataclass(frozen=True)
class _Node:
    """Of a piece of code: itself, each name that it reads (``a.b.c`` as a, b, c), and the texts in it."""

    code: str
    chains: tuple[tuple[str, ...], ...]
    texts: frozenset[str]


@cache
def _read(node: ast.AST) -> _Node:
    return _Node(
        code=told_of(node),
        chains=tuple(sorted(set(_chains(node)))),
        texts=frozenset(one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and _is_text(one.value)),
    )


@cache
def _module(name: str) -> _Module:
    path = _file_of(name)
    if path is None:
        raise ValueError(f"a study stands on {name!r}, and no such module; name one that is imported")
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    text = path.read_text(encoding="utf-8")
    bodies: dict[str, list[ast.stmt]] = {}
    for node in bare_tree(text).body:
        if not isinstance(node, ast.Import | ast.ImportFrom) and not _is_for_types(node):
            for defined in _defined(node) or {""}:
                bodies.setdefault(defined, []).append(node)
    interface = path.with_suffix(".pyi")
    return _Module(
        bodies={one: tuple(nodes) for one, nodes in bodies.items()},
        imports=_imports(ast.parse(text), package),
        exports=_imports(ast.parse(interface.read_text(encoding="utf-8")), package) if interface.is_file() else {},
    )


def _imports(tree: ast.Module, package: str) -> dict[str, tuple[tuple[str, str | None], ...]]:
    found: dict[str, list[tuple[str, str | None]]] = {}
    to_do: list[ast.AST] = [tree]
    while to_do:
        node = to_do.pop()
        if isinstance(node, ast.Import):
            for one in node.names:
                first = one.name.partition(".")[0]
                found.setdefault(one.asname or first, []).append((one.name if one.asname else first, None))
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for one in node.names:
                found.setdefault(one.asname or one.name, []).append((source, one.name))
        elif not _is_for_types(node):
            to_do.extend(ast.iter_child_nodes(node))
    return {name: tuple(sorted(set(sources), key=str)) for name, sources in found.items()}


def _defined(node: ast.stmt) -> set[str]:
    """The names that a statement of a module's top level binds."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return _stored(targets)
    return set()


def _chains(node: ast.AST, hidden: frozenset[str] = frozenset()) -> Iterator[tuple[str, ...]]:
    """Each name that is read, with the attributes that are asked of it: ``a.b.c`` as a, b, c; but no local names."""
    attributes: list[str] = []
    inner = node
    while isinstance(inner, ast.Attribute):
        attributes.append(inner.attr)
        inner = inner.value
    if isinstance(inner, ast.Name):
        if inner.id not in hidden:
            yield (inner.id, *reversed(attributes))
    elif isinstance(inner, _FUNCTIONS):
        within = (hidden | _locals(inner)) - _declared_global(inner)
        body = inner.body if isinstance(inner.body, list) else [inner.body]
        for child in ast.iter_child_nodes(inner):
            yield from _chains(child, within if child in body else hidden)
    elif isinstance(inner, _COMPREHENSIONS):
        first = inner.generators[0].iter
        within = hidden | _stored(one.target for one in inner.generators)
        yield from _chains(first, hidden)
        for child in ast.iter_child_nodes(inner):
            yield from _chains(child, within)
    else:
        for child in ast.iter_child_nodes(inner):
            yield from _chains(child, hidden)


def _locals(function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> set[str]:
    """Parameters, and what the body binds; not what functions and comprehensions within bind for themselves."""
    told = function.args
    found = {one.arg for one in (*told.posonlyargs, *told.args, *told.kwonlyargs, told.vararg, told.kwarg) if one}
    to_do: list[ast.AST] = list(function.body) if isinstance(function.body, list) else [function.body]
    while to_do:
        node = to_do.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif not isinstance(node, (ast.Lambda, *_COMPREHENSIONS)):
            to_do.extend(ast.iter_child_nodes(node))
    return found


def _declared_global(function: ast.AST) -> set[str]:
    return {name for one in ast.walk(function) if isinstance(one, ast.Global) for name in one.names}


def _stored(nodes: Iterable[ast.AST]) -> set[str]:
    return {one.id for node in nodes for one in ast.walk(node) if isinstance(one, ast.Name)}


def _names_of(module: str, entry: ast.expr) -> set[str]:
    """What an entry of a list is called, or the module that holds it calls what it holds: each ``name="..."``."""
    nodes: list[ast.AST] = [entry]
    if not isinstance(entry, ast.Call):
        for first, *_ in _chains(entry):
            for source, imported in _module(module).imports.get(first, ()):
                nodes.extend(body for bodies in _module(f"{source}.{imported}").bodies.values() for body in bodies)
    named = [
        one.value.value
        for node in nodes
        for one in ast.walk(node)
        if isinstance(one, ast.keyword) and one.arg == "name" and isinstance(one.value, ast.Constant)
    ]
    return set(filter(_is_text, named))


def _told(entry: ast.expr) -> str:
    """An entry by its name, so that others beside it do not change how it is told."""
    named = [one.value for one in getattr(entry, "keywords", []) if one.arg == "name"]
    return ast.unparse(named[0] if named else entry)


def _file_of(module: str) -> Path | None:
    """The source of a module of dolmen, or of one that is imported already and no installed library; else ``None``."""
    if _is_ours(module):
        place = _PACKAGE.joinpath(*module.split(".")[1:])
        found = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        return found if found.is_file() else None
    file = getattr(sys.modules.get(module), "__file__", None)
    path = Path(file) if file is not None else None
    is_library = path is None or path.suffix != ".py" or path.is_relative_to(sys.base_prefix) or _is_installed(path)
    return None if is_library else path


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == _PACKAGE.name


def _is_installed(path: Path) -> bool:
    return "site-packages" in path.parts or path.is_relative_to(sys.prefix)


def _is_in(module: str, places: Iterable[str]) -> bool:
    return any(f"{module}.".startswith(f"{place}.") for place in places)


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str)
