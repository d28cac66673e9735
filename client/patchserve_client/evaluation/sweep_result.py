"""The result of a sweep: every setting, which of them to use, and why in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from patchserve_client import ServerInfo
from patchserve_client._counted import counted
from patchserve_client.evaluation.choice import Choice, choose
from patchserve_client.evaluation.dataset import Dataset
from patchserve_client.evaluation.number_text import share_range, share_text, three_digits, with_range
from patchserve_client.evaluation.outcome import Failure, Outcome


@dataclass(frozen=True)
class SweepResult:
    """Everything that was found."""

    dataset: Dataset
    server: ServerInfo
    results: Sequence[Outcome | Failure]  # in the order in which they were measured
    planned: int  # settings; more than results: the sweep was interrupted

    @cached_property
    def outcomes(self) -> list[Outcome]:
        return [one for one in self.results if isinstance(one, Outcome)]

    @cached_property
    def failures(self) -> list[Failure]:
        return [one for one in self.results if isinstance(one, Failure)]

    @cached_property
    def choice(self) -> Choice | None:
        return choose(self.outcomes)

    @property
    def chosen(self) -> Outcome | None:
        """The setting to use; None: nothing was measured."""
        return None if self.choice is None else self.outcomes[self.choice.chosen]

    def standing(self, result: Outcome | Failure) -> str:
        """How a setting compares, in a word or two."""
        if isinstance(result, Failure) or self.choice is None:
            return "failed"
        index = self.outcomes.index(result)
        if index == self.choice.chosen:
            return "chosen"
        if index == self.choice.best:
            return "best"
        return "as good" if index in self.choice.as_good else "worse"

    def conclusion(self) -> list[str]:
        """What to use and why, as sentences."""
        if self.choice is None:
            return ["No setting was measured."]
        return [
            *self._setting_sentences(self.choice),
            *self._profile_sentences(self.choice),
            *self._doubts(self.choice),
        ]

    def _setting_sentences(self, choice: Choice) -> Iterator[str]:
        chosen, best = self.outcomes[choice.chosen], self.outcomes[choice.best]
        yield f"Use {chosen.setting}: {_figures(chosen)}."
        if (chosen.metrics.image_auroc or 0) < (best.metrics.image_auroc or 0):
            yield (
                f"The highest image AUROC has {best.setting}: {_figures(best)}. The difference may be chance, and the "
                "chosen setting is cheaper."
            )
        elif len(choice.as_good) > 1:
            yield "No setting has a higher image AUROC, and none that may be as good is cheaper."
        elif len(self.outcomes) > 1:
            yield "All other settings are worse by more than chance."

    def _profile_sentences(self, choice: Choice) -> Iterator[str]:
        best_of: dict[str, tuple[float, bool]] = {}  # by profile: its highest image AUROC, whether it is as good
        for index, outcome in enumerate(self.outcomes):
            name = outcome.setting.profile.value
            auroc, is_good = best_of.get(name, (0.0, False))
            best_of[name] = max(auroc, outcome.metrics.image_auroc or 0), is_good or index in choice.as_good
        if len(best_of) == 1:
            return
        good = [f"{name} ({auroc:.3f})" for name, (auroc, is_good) in best_of.items() if is_good]
        bad = [f"{name} ({auroc:.3f})" for name, (auroc, is_good) in best_of.items() if not is_good]
        suits = f"Profile {good[0]} suits" if len(good) == 1 else f"Profiles {_listed(good)} suit"
        yield (
            f"{suits} these images"
            + (" equally well, as far as they can tell" if len(good) > 1 else "")
            + (f"; {_listed(bad)} {'is' if len(bad) == 1 else 'are'} worse" if bad else "")
            + ". In parentheses: the highest image AUROC of the profile."
        )

    def _doubts(self, choice: Choice) -> Iterator[str]:
        if len(choice.as_good) > 1:
            images = len(self.outcomes[choice.best].findings.verdicts)
            yield (
                f"{len(choice.as_good)} of {counted(len(self.outcomes), 'setting')} cannot be told apart with "
                f"{counted(images, 'test image')}; more test images would tell. Worse settings have a "
                "lower image AUROC or a lower balanced accuracy than chance explains."
            )
        if self.failures:
            yield f"{counted(len(self.failures), 'setting')} could not be measured."
        if len(self.results) < self.planned:
            yield f"The sweep was ended after {len(self.results)} of {counted(self.planned, 'setting')}."


def _figures(outcome: Outcome) -> str:
    auroc = with_range(share_text(outcome.metrics.image_auroc), share_range(outcome.intervals["image_auroc"]))
    return f"image AUROC {auroc}, {three_digits(outcome.image_ms)} ms an image, {three_digits(outcome.bank_mib)} MiB"


def _listed(names: Sequence[str]) -> str:
    """As in "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
