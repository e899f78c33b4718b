import io
import math
from threading import Event

import pytest
import torch

from dolmen.compute import torch_threads
from dolmen.errors import ConfigError
from dolmen.training import TrainConfig, validate
from dolmen.training.progress import FitProgress


@pytest.fixture(scope="module")
def training(world):
    return [world.batch(number, 64) for number in range(60)]


@pytest.fixture(scope="module")
def validation(world):
    return [world.batch(number, 64, seed=1) for number in range(60)]


def _trainer(world):
    return world.trainer(TrainConfig(learning_rate=0.01))


def test_fit_learns_and_says_how_well(world, training, validation) -> None:
    trainer = _trainer(world)
    report = trainer.fit(training, epochs=2, validation=validation, progress=False)
    first, second = report.epochs
    assert first.example_count == second.example_count == 60 * 64
    assert second.validation is not None
    assert second.validation.auc > 0.7
    assert second.validation.log_loss < math.log(2)
    assert second.validation.loss < first.loss
    assert second.auc > first.auc
    assert trainer.version == 120


@pytest.mark.parametrize("threads", [1, 2])
def test_learning_takes_the_tables_threads_and_gives_back_what_was_set(world, training, log, threads) -> None:
    seen = []
    trainer, stop = _trainer(world), Event()
    trainer.embeddings.threads = threads

    def watched(batches):
        for batch in batches:
            seen.append(torch.get_num_threads())
            yield batch

    with torch_threads(3):
        trainer.fit(watched(training[:2]), validation=watched(training[:1]), progress=False)
        trainer.follow(log, stop, between=lambda: (seen.append(torch.get_num_threads()), stop.set()))
        assert torch.get_num_threads() == 3
    assert len(seen) >= 4
    assert set(seen) == {threads}


def test_same_batches_and_seed_give_the_same_bits(world, training, rows, dense) -> None:
    one, other = _trainer(world), _trainer(world)
    one.fit(training[:20], epochs=2, progress=False)
    other.fit(training[:20], epochs=2, validation=training[:5], progress=False)  # looking changes nothing
    assert rows(one) == rows(other)
    assert dense(one.model) == dense(other.model)


def test_early_stop_goes_back_to_the_best_epoch(world, training, validation, rows, dense) -> None:
    # With a rate this high, rows of ids overfit at once.
    trainer = world.trainer(TrainConfig(learning_rate=0.05, embedding_rate_scale=10.0))
    report = trainer.fit(training[:20], epochs=10, validation=validation[:20], patience=2, progress=False)
    losses = [epoch.validation.loss for epoch in report.epochs]
    assert len(losses) < 10
    assert report.best_epoch == losses.index(min(losses)) + 1 == len(losses) - 2
    assert validate(trainer, validation[:20]).loss == pytest.approx(min(losses))
    again = world.trainer(TrainConfig(learning_rate=0.05, embedding_rate_scale=10.0))
    again.fit(training[:20], epochs=report.best_epoch, progress=False)
    assert rows(again) == rows(trainer)
    assert dense(again.model) == dense(trainer.model)


def test_fitted_model_goes_on_by_stream(world, training, tmp_path) -> None:
    trainer = _trainer(world)
    trainer.fit(training[:5], progress=False)
    assert trainer.save(tmp_path).name == "000000000005"


def test_options_out_of_range_are_named(world, training) -> None:
    trainer = _trainer(world)
    with pytest.raises(ValueError, match="epochs must be at least 1, got 0"):
        trainer.fit(training, epochs=0)
    with pytest.raises(ValueError, match="patience must be at least 1 and needs validation"):
        trainer.fit(training, patience=3)
    with pytest.raises(ValueError, match="can be iterated once only, but epochs is 2"):
        trainer.fit(iter(training), epochs=2)
    with pytest.raises(ValueError, match="validation has no example"):
        trainer.fit(training[:1], validation=[], progress=False)
    assert ConfigError  # a setting of the file is checked at the edge, these are arguments


class _Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bar_shows_early_numbers_on_a_terminal() -> None:
    class Half:
        auc = 0.5

    screen = _Screen()
    with FitProgress(1, Half(), stream=screen) as shown:
        shown.begin(1, 10)
        for _ in range(10):
            shown.advance(64, 0.25)
        shown.end("validation loss 0.3")
    text = screen.getvalue()
    for part in ("epoch 1/1", "examples/s", "loss 0.2500", "AUC 0.5000", "validation loss 0.3"):
        assert part in text


def test_progress_is_silent_where_nobody_looks_and_speaks_lines_if_asked() -> None:
    for show, expected in ((None, False), (False, False), (True, True)):
        stream = io.StringIO()
        with FitProgress(2, show=show, stream=stream) as shown:
            shown.begin(1, None)
            shown.advance(64, 0.5)
            shown.end("")
        assert (stream.getvalue() != "") is expected
    assert "epoch 1/2 done" in stream.getvalue()
    assert "AUC" not in stream.getvalue(), "not known yet"


def test_fit_leaves_other_peoples_random_numbers_alone(world, training) -> None:
    import torch  # noqa: PLC0415

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    _trainer(world).fit(training[:2], progress=False)
    assert torch.equal(torch.rand(3), expected)
