"""Code is told alike by every Python: whose it is, a cell says by a checksum of that."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dolmen
from dolmen.studies import bare

_PACKAGE = Path(dolmen.__file__).parent
_TEXT = """
import numpy as np
from dolmen.studies.guards import refuse

LIMITS: dict[str, float | None] = {"\u00e4": 1e-3, **OTHERS, "none": None}

@final
class One(Base, metaclass=Meta):
    "Said."
    size = u"old" "er" if LIMITS else f"{LIMITS!r:>{width}.3f}{np.pi=}"

    async def run(self, first, /, *rest, key=..., **told) -> None:
        refuse(first)
        while (step := await first):
            yield [one for one in rest if one not in told], lambda x, y=1j: x @ -y
        match first:
            case {"a": [1, *others], **more} | Point(x=0):
                raise ValueError("no") from None
            case _:
                return
        try:
            del first.a[1:2, ::3]
        except* OSError as problem:
            nonlocal_ = problem
        finally:
            pass
"""
_PROGRAM = """
import hashlib, runpy, sys
told = runpy.run_path(sys.argv[1])
for path in sys.stdin.read().splitlines():
    with open(path, encoding="utf-8") as file:
        text = told["told_of"](told["bare_tree"](file.read()))
    print(hashlib.blake2b(text.encode(), digest_size=8).hexdigest())
"""


def _python(version: str) -> str | None:
    """A Python of this version, wherever there is one."""
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        return sys.executable
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    return next((str(path) for path in kept.glob(f"{version}.*/bin/python")), shutil.which(f"python{version}"))


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_every_python_tells_code_alike(version: str, tmp_path: Path) -> None:
    """All of the package, and what it has not; ``ast.dump`` once told the same code in another way in each."""
    python = _python(version)
    if python is None:
        pytest.skip(f"no Python {version} is on this machine, so nobody knows whether it tells code as others do")
    sample = tmp_path / "sample.py"
    sample.write_text(_TEXT, encoding="utf-8")
    paths = [sample, *sorted(_PACKAGE.rglob("*.py"))]
    command, asked = [python, "-c", _PROGRAM, bare.__file__], "\n".join(map(str, paths))
    found = subprocess.run(command, check=False, input=asked, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    texts = [bare.told_of(bare.bare_tree(path.read_text(encoding="utf-8"))) for path in paths]
    assert found.stdout.split() == [hashlib.blake2b(text.encode(), digest_size=8).hexdigest() for text in texts]
    assert found.stdout.split()[0] == "0eee58cd5cf1bc39"  # another would make every kept cell one of other code
