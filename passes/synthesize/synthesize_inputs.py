"""`synthesize-inputs`: inputs without data, at the scale that the network's own weights and biases ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...errors import ModelError
from ...ir.cost import summary
from ...ir.execute import Session
from ...ir.graph import weight_bytes
from ...ir.probe import LARGEST_OBSERVED, Probe, with_shapes
from ..base import Pass
from ..context import Context
from .feeding import feeds_of, token_feeds
from .hypotheses import Hypothesis, features, pictures, search, surprise
from .recalled import recalled, remembered
from .signature import Signature, padded_as_tensorflow_does, read_signature
from .sounds import sounds, spectra
from .stored_types import BYTES, as_floats, as_stored
from .typicality import IMPLAUSIBLE, atypicality, echoes, odds, pre_activations, statistics_of, unlikeness

__all__ = ["SynthesizeInputs"]

Floats = npt.NDArray[np.float32]

_STEPS = 4  # calls for each sample asked for, of a model that carries state: they are parts of one signal
_FEWEST, _MOST = 12, 32  # samples when the number is left open: as many as _SAMPLE_MACS run
_SAMPLE_MACS = 8e9
_SCORED, _MOST_SCORED = 4, 16  # samples that a hypothesis is judged on: as many as _SCORE_MACS run for all of them
_SCORE_MACS = 1e10
_GROUPS = 16  # most features that get a mean and scale of their own; neighbours share beyond
_SEARCH_MACS = 2e10  # a few seconds of arithmetic
_FEWEST_STEPS = 90
_MOST_STEPS = 1500
_LIKELY = 1 / 20  # a scale that was left out and is right ruins the network, one too many costs a few dB
_SOUNDS = {"sound": sounds, "spectrum": spectra}


@dataclass(frozen=True)
class SynthesizeInputs(Pass):
    """Pictures, drawings, sound, features or tokens, at the scale and offset that make the model look most like trained

    samples: how many to make; 12 to 32, fewer where a run is long, when not given. Real samples given by the user
    (`context.data`) are used instead where there are any.
    """

    samples: int | None = None
    name: ClassVar[str] = "synthesize-inputs"
    exact: ClassVar[bool] = True

    def run(self, model: ir.Model, context: Context) -> None:
        if context.data:
            context.record.skip("inputs", "real samples were given")
            return
        try:
            self._synthesize(model, context)
        except ModelError as error:
            context.record.skip("inputs", f"the model does not run: {error.what}")

    def _synthesize(self, model: ir.Model, context: Context) -> None:
        context.likeliest = None
        if (size := weight_bytes(model)) > LARGEST_OBSERVED:
            context.record.skip("inputs", f"{size >> 20} MiB of weights are too many to run the model on trial inputs")
            return
        shaped = with_shapes(model)
        stored = as_floats(shaped)
        session = Session(shaped)
        found = read_signature(shaped, session, context.seed)
        if isinstance(found, str):
            context.record.skip("inputs", found)
            return
        if found.kind == "tokens":
            feeds = token_feeds(shaped, found, self._count(shaped, found), context.rng())
            if context.record.change(found.name, f"sentences of {found.shape[1]} random tokens"):
                context.synthetic = feeds
            return
        values = pre_activations(shaped)
        if not values and not echoes(shaped, found.name) and remembered(shaped, found) is None:
            context.record.skip(found.name, "no layer whose bias or BatchNorm could tell the input's scale")
            return
        count = self._count(shaped, found)
        drawn = count * (_STEPS if found.roles.states else 1)
        whole = stored.get(found.name) in BYTES
        chosen, scores = _choose(shaped, values, found, drawn, session, context, whole=whole)
        context.record.measures["atypicality"] = {title: round(score, 4) for title, score in scores.items()}
        best = min(scores, key=lambda title: scores[title])
        if scores[best] > IMPLAUSIBLE:
            context.record.skip(
                found.name, f"no prior input suits the model: the best, {best}, scores {scores[best]:.2f}"
            )
            return
        if context.record.change(
            found.name, f"{' or '.join(h.title for h in chosen)} (atypicality {scores[best]:.3f})"
        ):
            mixed = chosen[0].drawn if found.roles.states else _mixed(chosen, count)
            context.synthetic = as_stored(feeds_of(shaped, found, mixed, session), stored)
            if len(chosen) > 1:
                context.likeliest = as_stored(feeds_of(shaped, found, chosen[0].drawn[:count], session), stored)

    def _count(self, model: ir.Model, signature: Signature) -> int:
        if self.samples is not None:
            return self.samples
        return int(np.clip(_SAMPLE_MACS / max(_macs(model, signature), 1), _FEWEST, _MOST))


def _macs(model: ir.Model, signature: Signature) -> float:
    """Multiplications of one sample's run."""
    return summary(with_shapes(model, {signature.name: signature.shape})).macs / signature.shape[0]


def _choose(
    model: ir.Model,
    values: Sequence[ir.Value],
    signature: Signature,
    count: int,
    session: Session,
    context: Context,
    *,
    whole: bool,
) -> tuple[list[Hypothesis], dict[str, float]]:
    """The hypotheses to draw inputs from, best first, and the score of every one that was tried.

    whole: the input is stored in bytes, so that pictures have the numbers of bytes.
    """
    rng = context.rng()
    made = [str(v.name) for v in echoes(model, signature.name)]
    names = [*(str(v.name) for v in values), *made, signature.name]
    probe = Probe(model, list(dict.fromkeys(names)), extremes=False)
    known = remembered(model, signature)
    if known is not None:
        tried = recalled(signature, known, count, rng)
    elif signature.kind == "features":
        fitted, score = _fit(model, values, signature, count, context)
        return [fitted], {fitted.title: score}
    elif signature.kind == "picture":
        tried = pictures(signature, count, rng, padded_as_tensorflow_does(model), whole=whole)
    else:
        tried = _SOUNDS[signature.kind](signature, count, rng)
    affordable = _SCORE_MACS / max(len(tried) * _macs(model, signature), 1)
    scored = int(np.clip(affordable, _SCORED, _MOST_SCORED)) if signature.kind == "picture" else count
    layers, echo, stored = {}, {}, statistics_of(values)
    for done, hypothesis in enumerate(tried):
        context.progress("inferring the input's scale", done / len(tried))
        feeds = feeds_of(model, signature, hypothesis.samples[:scored], session)
        observed = probe(feeds)
        echoed = unlikeness(observed[signature.name], [observed[name] for name in made])
        layers[hypothesis.title] = np.concatenate([atypicality(values, observed, stored), echoed])
        echo[hypothesis.title] = float(np.max(echoed, initial=0.0))
    told = known is not None or signature.kind == "picture"
    extreme = {h.title: 0.0 if told else _extreme(h) for h in tried}
    scores = {title: float(score.mean()) + extreme[title] if score.size else 0.0 for title, score in layers.items()}
    ranked = sorted(tried, key=lambda h: scores[h.title])
    best = layers[ranked[0].title]
    if signature.kind != "picture":  # spectra differ by orders of magnitude: a range for all of them serves none
        return ranked[:1], scores
    # what may well be true beside the best is kept too, so that ranges cover it
    alike = [h for h in ranked if echo[h.title] <= max(echo[ranked[0].title], 0.5)]
    likely = {h.title: odds(best, layers[h.title]) * (h.prior if h is not ranked[0] else 1.0) for h in alike}
    return [h for h in ranked if likely.get(h.title, 0.0) >= _LIKELY * sum(likely.values())], scores


def _fit(
    model: ir.Model, values: Sequence[ir.Value], signature: Signature, count: int, context: Context
) -> tuple[Hypothesis, float]:
    """Mean and scale of every feature such that the network looks most like a trained one."""
    rng = context.rng()
    unit, shape = features(signature, count, rng)
    width = int(np.prod(shape))
    groups = min(width, _GROUPS)
    member = np.arange(width) * groups // width
    probe, stored = Probe(model, [str(v.name) for v in values], extremes=False, threads=1), statistics_of(values)

    def make(mean: Floats, log_scale: Floats, samples: Floats) -> Floats:
        x = mean[member].reshape(shape) + np.exp(log_scale[member]).reshape(shape) * samples
        return x.astype(np.float32)

    def objective(mean: Floats, log_scale: Floats) -> float:
        observed = probe(feeds_of(model, signature, make(mean, log_scale, unit[:_SCORED]), None))
        scores = atypicality(values, observed, stored)
        return float(scores.mean()) + surprise(mean, log_scale)

    runs = feeds_of(model, signature, unit[:_SCORED], None)
    macs = len(runs) * summary(with_shapes(model, {signature.name: runs[0][signature.name].shape})).macs
    affordable = int(_SEARCH_MACS / max(macs, 1))
    steps = min(max(affordable, _FEWEST_STEPS), _MOST_STEPS)
    mean, log_scale, score = search(objective, groups, steps, rng)
    title = f"feature sequences, means {_span(mean)}, deviations {_span(np.exp(log_scale))}"
    return Hypothesis(title, make(mean, log_scale, unit)), score


def _extreme(hypothesis: Hypothesis) -> float:
    """What speaks against its numbers themselves."""
    mean, std = hypothesis.samples.mean(), max(float(hypothesis.samples.std()), 1e-30)
    return surprise(np.asarray([mean]), np.log(np.asarray([std], np.float32)))


def _span(values: Floats) -> str:
    return f"{values.min():.3g} to {values.max():.3g}" if values.size > 1 else f"{values[0]:.3g}"


def _mixed(hypotheses: Sequence[Hypothesis], count: int) -> Floats:
    """Every other sample from the best hypothesis, the others in turn between them."""
    others = hypotheses[1:] or hypotheses
    sources = [hypotheses[0] if i % 2 == 0 else others[i // 2 % len(others)] for i in range(count)]
    return np.stack([source.drawn[i % len(source.drawn)] for i, source in enumerate(sources)])
