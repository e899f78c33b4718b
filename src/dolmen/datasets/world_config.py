"""The knobs of the simulated world, and two ready-made ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, final

from dolmen.clock import parse_duration_us

__all__ = ["DRIFTING", "STEADY", "WorldConfig"]


@final
@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """What the world is like; every field has a meaning that can be measured in what it produces.

    Args:
        users: how many people.
        items: how many items the catalogue has at any instant.
        genre_count: how many genres; an item has one to three.
        segment_count: how many kinds of people; each person shows theirs (an attribute), and shares some of its taste.
        latent_dim: numbers that make up a taste.
        zipf_exponent: the r-th most shown item is shown in proportion to r^-zipf_exponent.
        activity_exponent: the same for how often the r-th most active person comes.
        slate_size: items in one response.
        slates_per_second: how many responses a second of the world's time.
        base_click_rate: chance of a click on an item that is looked at, on average over worlds.
        quality_strength: standard deviation, in logits, of what makes an item better for everybody, for its whole life.
        fashion_strength: the same for what makes an item's genres better for everybody, for a while.
        taste_strength: the same for what makes an item better for one person, for a while.
        segment_share: the part of a taste's variance that all people of one segment share.
        genre_share: the part of an item's character that comes from its genres, 0 to 1.
        drift_half_life: after this time, tastes and fashions are correlated by one half with what they were;
            ``None``: they never change.
        item_lifetime: an item leaves after this time and a new one takes its place, so that per ``item_lifetime`` the
            whole catalogue is renewed once, evenly; ``None``: the catalogue never changes.
        position_exponent: position p (from 0) is looked at with probability (p + 1)^-position_exponent.
        delay_median: half the clicks arrive within this time of being shown.
        delay_sigma: standard deviation of the logarithm of that time.
        start_us: the instant at which the world starts.
        seed: another seed is another world of the same kind.

    Raises:
        ValueError: a field is out of range; the message names it.
    """

    users: int = 1000
    items: int = 1000
    genre_count: int = 12
    segment_count: int = 6
    latent_dim: int = 8
    zipf_exponent: float = 0.8
    activity_exponent: float = 0.5
    slate_size: int = 10
    slates_per_second: float = 1.0
    base_click_rate: float = 0.25
    quality_strength: float = 0.7
    fashion_strength: float = 0.7
    taste_strength: float = 1.2
    segment_share: float = 0.5
    genre_share: float = 0.7
    drift_half_life: str | None = None
    item_lifetime: str | None = None
    position_exponent: float = 0.4
    delay_median: str = "3s"
    delay_sigma: float = 1.0
    start_us: int = 1_767_225_600_000_000  # 2026-01-01
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("users", "items", "genre_count", "segment_count", "latent_dim", "slate_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"WorldConfig.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("zipf_exponent", "activity_exponent", "position_exponent", "delay_sigma"):
            self._check_at_least_zero(name)
        for name in ("quality_strength", "fashion_strength", "taste_strength"):
            self._check_at_least_zero(name)
        for name in ("segment_share", "genre_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"WorldConfig.{name} must be between 0 and 1, got {getattr(self, name)}")
        if not 0 < self.base_click_rate < 1:
            raise ValueError(f"WorldConfig.base_click_rate must be between 0 and 1, got {self.base_click_rate}")
        if not 0 < self.slates_per_second < math.inf:
            raise ValueError(f"WorldConfig.slates_per_second must be above 0, got {self.slates_per_second}")
        if self.slate_size > self.items:
            raise ValueError(f"WorldConfig.slate_size {self.slate_size} is more than the {self.items} items there are")
        for name in ("drift_half_life", "item_lifetime", "delay_median"):
            self._check_duration(name)

    def _check_at_least_zero(self, name: str) -> None:
        if not 0 <= getattr(self, name) < math.inf:
            raise ValueError(f"WorldConfig.{name} must be at least 0, got {getattr(self, name)}")

    def _check_duration(self, name: str) -> None:
        text = getattr(self, name)
        if text is None:
            return
        try:
            duration_us = parse_duration_us(text)
        except ValueError as problem:
            raise ValueError(f"WorldConfig.{name}: {problem}") from None
        if duration_us < 1:
            raise ValueError(f"WorldConfig.{name} must be longer than 0, got {text!r}")


STEADY: Final = WorldConfig()
DRIFTING: Final = WorldConfig(
    fashion_strength=1.2, taste_strength=1.0, quality_strength=0.5, drift_half_life="25m", item_lifetime="3h"
)
