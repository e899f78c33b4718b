"""Colours of the page against WCAG 2.2, level AA, in both themes, computed from the style sheet itself.

Text needs 4.5 : 1 against what lies behind it (success criterion 1.4.3), marks and borders that carry meaning 3 : 1
(1.4.11). The formula is that of the definition of *relative luminance* there.
"""

from __future__ import annotations

import re
from importlib import resources

import pytest

SHEET = resources.files("dolmen.console").joinpath("static", "console.css").read_text()
THEMES = {"light": 0, "dark": 1}
TEXT, GRAPHIC = 4.5, 3.0

# (front, behind, least ratio): every pairing that the style sheet makes.
PAIRS = [
    *[(front, behind, TEXT) for front in ("ink", "quiet") for behind in ("ground", "surface", "raised", "stone")],
    *[("water", behind, TEXT) for behind in ("ground", "surface", "water-wash")],
    *[("lichen", behind, TEXT) for behind in ("ground", "surface", "lichen-wash")],
    *[("alarm", behind, TEXT) for behind in ("surface", "alarm-wash")],
    ("on-water", "water", TEXT),
    ("ink", "water-wash", TEXT),
    ("ink", "lichen-wash", TEXT),
    ("quiet", "water-wash", TEXT),
    ("quiet", "lichen-wash", TEXT),
    ("frost", "surface", GRAPHIC),
    ("water", "stone", GRAPHIC),
    ("lichen", "stone", GRAPHIC),
    ("water", "rule", GRAPHIC),
    ("edge", "surface", GRAPHIC),
    ("edge", "raised", GRAPHIC),
    ("edge", "stone", GRAPHIC),
]


def colours() -> dict[str, tuple[str, str]]:
    found = re.findall(r"--([a-z-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\);", SHEET)
    return {name: (light, dark) for name, light, dark in found}


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_formula_gives_the_known_extremes() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#777777") == 1.0
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.005)  # the well-known lightest grey that passes


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize(("front", "behind", "least"), PAIRS, ids=str)
def test_colours_stand_out_from_what_lies_behind_them(theme: str, front: str, behind: str, least: float) -> None:
    at = THEMES[theme]
    ratio = contrast(colours()[front][at], colours()[behind][at])
    assert ratio >= least, f"{theme}: --{front} on --{behind} is {ratio:.2f} : 1, needs {least} : 1"


def test_every_colour_is_declared_once_for_both_themes_and_used() -> None:
    declared = re.findall(r"--([a-z-]+):", SHEET)
    used = set(re.findall(r"var\(--([a-z-]+)\)", SHEET))
    assert len(declared) == len(set(declared))
    assert used == set(declared)
    outside_of_declarations = re.sub(r"--[a-z-]+: [^;]+;", "", SHEET)
    assert re.findall(r"#[0-9a-f]{3,8}\b|\brgba?\(|\bhsla?\(", outside_of_declarations) == []


def test_every_colour_takes_part_in_a_checked_pair() -> None:
    assert {name for pair in PAIRS for name in pair[:2]} == set(colours())
