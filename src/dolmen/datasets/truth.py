"""What the people of the simulated world want: the true chance of a click, at any instant.

The logit of a click on an item that is looked at is, for person u and item i at time t,

    b + quality_i + fashion(t) . genres_i + taste_u(t) . character_i

where the last three are normal over persons, items and time with the standard deviations of ``WorldConfig``, and b is
such that the mean chance is ``base_click_rate``. Tastes and fashions turn: at steps of one length (each person and
genre with an own beginning) a new random direction is drawn, and between two steps the taste moves along the arc from
one direction to the next. Everything is computed from hashes of ids, so any instant can be asked for, in any order.
"""

from __future__ import annotations

import math
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from dolmen.clock import parse_duration_us
from dolmen.datasets.draws import normals, uniforms
from dolmen.datasets.world_config import WorldConfig
from dolmen.seeds import derive_seed

__all__ = ["Truth", "drift_correlation"]

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]


def drift_correlation(steps: float) -> float:
    """How a taste is correlated with itself ``steps`` step lengths later, on average over the beginnings of steps.

    With x(t) = cos(pi f / 2) z_k + sin(pi f / 2) z_(k+1), where f is the place between the steps k and k + 1, and the
    z independent, the mean over f of E[x(t) x(t + s)] is (1 - s / 2) cos(pi s / 2) + sin(pi s / 2) / pi up to s = 2,
    and 0 from there on.
    """
    if steps >= 2:
        return 0.0
    return (1 - steps / 2) * math.cos(math.pi * steps / 2) + math.sin(math.pi * steps / 2) / math.pi


@final
class Truth:
    """Clicks as they really come about. Ids are integers; arguments are broadcast against each other."""

    def __init__(self, config: WorldConfig) -> None:
        self._config = config
        self._seeds = {
            name: derive_seed(config.seed, "world", name)
            for name in ("segment", "own taste", "segment taste", "fashion", "genre", "genres", "item", "quality")
        }
        self._step_us = None
        if config.drift_half_life is not None:
            self._step_us = parse_duration_us(config.drift_half_life) / _HALF_LIFE_STEPS
        genres = normals(self._seeds["genre"], np.arange(config.genre_count)[:, None], np.arange(config.latent_dim))
        self._genre_directions = _unit(genres)
        spread = math.hypot(config.quality_strength, config.fashion_strength, config.taste_strength)
        self.intercept = _intercept(config.base_click_rate, spread)

    def logits(self, users: _Ints, items: _Ints, times_us: _Ints) -> _Floats:
        """Logit of a click on an item that is looked at.

        A taste is computed for each element of ``users`` and ``times_us`` broadcast together: give these an axis of
        length 1 where a slate's items share them.
        """
        config = self._config
        unique, places = np.unique(items, return_inverse=True)
        places = places.reshape(items.shape)
        genres = self.genres(unique)
        character, weights = self._characters(unique, genres), _share(genres)
        logits: _Floats = self.intercept + config.quality_strength * normals(self._seeds["quality"], unique)[places]
        if config.fashion_strength > 0:
            logits = logits + config.fashion_strength * (self.fashions(times_us) * weights[places]).sum(axis=-1)
        if config.taste_strength > 0:
            logits = logits + config.taste_strength * (self.tastes(users, times_us) * character[places]).sum(axis=-1)
        return logits

    def tastes(self, users: _Ints, times_us: _Ints) -> _Floats:
        """Standard normal numbers, correlated over time, shape (..., latent_dim)."""
        shared, dim = self._config.segment_share, self._config.latent_dim
        own = self._turning("own taste", users, times_us, dim)
        segment = self._turning("segment taste", self.segments(users), times_us, dim)
        taste: _Floats = math.sqrt(shared) * segment + math.sqrt(1 - shared) * own
        return taste

    def fashions(self, times_us: _Ints) -> _Floats:
        """Standard normal numbers, correlated over time, shape (..., genre_count)."""
        genres = np.arange(self._config.genre_count)
        return self._turning("fashion", genres, np.asarray(times_us)[..., None], 1)[..., 0]

    def segments(self, users: _Ints) -> _Ints:
        """The kind of each person, from 0."""
        return (uniforms(self._seeds["segment"], users) * self._config.segment_count).astype(np.int64)

    def genres(self, items: _Ints) -> NDArray[np.bool_]:
        """Which genres each item has, one to three, shape (count, genre_count)."""
        count = self._config.genre_count
        drawn = uniforms(self._seeds["genres"], items[:, None], np.arange(count + 1))
        rank = drawn[:, :count].argsort(axis=1).argsort(axis=1)
        own_count = np.digitize(drawn[:, count], _GENRE_COUNT_ODDS) + 1  # how many genres this item has
        return rank < own_count[:, None]

    def _characters(self, items: _Ints, genres: NDArray[np.bool_]) -> _Floats:
        """Unit vectors, so that a taste's component along them is standard normal, shape (count, latent_dim)."""
        share, dim = self._config.genre_share, self._config.latent_dim
        common = _unit(genres.astype(np.float64) @ self._genre_directions)
        own = _unit(normals(self._seeds["item"], items[:, None], np.arange(dim)))
        return _unit(math.sqrt(share) * common + math.sqrt(1 - share) * own)

    def _turning(self, name: str, ids: _Ints, times_us: _Ints, dim: int) -> _Floats:
        seed, axis = self._seeds[name], np.arange(dim)
        if self._step_us is None:
            fixed, _ = np.broadcast_arrays(np.asarray(ids), np.asarray(times_us))
            return normals(seed, fixed[..., None], 0, axis)
        steps = (np.asarray(times_us) - self._config.start_us) / self._step_us + uniforms(seed, ids, -1)
        step = np.floor(steps)
        angle = (np.pi / 2 * (steps - step))[..., None]
        number, who = step.astype(np.int64)[..., None], np.broadcast_to(ids, step.shape)[..., None]
        turned: _Floats = np.cos(angle) * normals(seed, who, number, axis)
        return turned + np.sin(angle) * normals(seed, who, number + 1, axis)


_GENRE_COUNT_ODDS: Final = np.array([0.5, 0.85])  # one genre for half the items, three for 15 %


def _half_life_steps() -> float:
    low, high = 0.0, 2.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if drift_correlation(middle) > 0.5 else (low, middle)
    return low


_HALF_LIFE_STEPS: Final = _half_life_steps()


def _intercept(click_rate: float, spread: float) -> float:
    """The b for which the mean of the logistic function of a normal number (b, spread^2) is ``click_rate``."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    weights = weights / weights.sum()
    low, high = -50.0, 50.0
    for _ in range(80):
        middle = (low + high) / 2
        mean = float(weights @ (1 / (1 + np.exp(-(middle + spread * nodes)))))
        low, high = (middle, high) if mean < click_rate else (low, middle)
    return low


def _unit(vectors: _Floats) -> _Floats:
    unit: _Floats = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return unit


def _share(genres: NDArray[np.bool_]) -> _Floats:
    """Weights with which an item follows the fashions of its genres, so that their sum is standard normal too."""
    share: _Floats = genres / np.sqrt(genres.sum(axis=1, keepdims=True))
    return share
