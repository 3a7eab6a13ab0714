"""Classes at the particles' own poses: the search of :mod:`verglas.heterogeneity.classes` with poses that stay."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np

from verglas.heterogeneity.classes import REPEAT_SEED, ClassObserver, ClassTrial, has_both_halves
from verglas.heterogeneity.components import ComponentModel, mean_model
from verglas.heterogeneity.fixed_classes import FixedClasses, fit_classes, held_out_class_evidence
from verglas.heterogeneity.posed import PosedImages
from verglas.heterogeneity.settings import ClassSettings
from verglas.heterogeneity.splitting import SplittingClasses
from verglas.search.state import PoseTable
from verglas.types.arrays import Float32Array


class FixedClassSearch:
    """Classes at the particles' own poses.

    Parameters
    ----------
    posed : PosedImages
    settings : ClassSettings
    mask : (N, N, N) float32, optional
        Where classes may differ.
    observer : ClassObserver
    """

    def __init__(
        self, posed: PosedImages, settings: ClassSettings, mask: Float32Array | None, observer: ClassObserver
    ) -> None:
        self.posed, self.settings, self.mask, self.observer = posed, settings, mask, observer
        # The noise by which all numbers of classes are judged is that of all particles.
        self.mean = mean_model(posed, contrast=settings.contrast, mask=mask)

    def trials(self, counts: list[int]) -> Iterator[ClassTrial]:
        """Every number of classes; the single map comes first."""
        some, mean = self._good
        yield self._first if some is self.posed else self._single(some, mean)
        for count in counts:
            if count > 1:
                yield self._classes(count, self.settings.seed)

    def again(self, count: int, number: int) -> ClassTrial:
        """So many classes once more, from another start; the repeats count from 1."""
        return self._classes(count, self.settings.seed + REPEAT_SEED * number)

    @cached_property
    def _first(self) -> ClassTrial:
        return self._single(self.posed, self.mean)

    def _single(self, posed: PosedImages, mean: ComponentModel) -> ClassTrial:
        start = np.ones((len(posed), 1))
        return self._trial(fit_classes(posed, 1, start=start, mean=mean, mask=self.mask, iterations=1))

    @cached_property
    def _good(self) -> tuple[PosedImages, ComponentModel]:
        """Particles that are not junk by the single map, and their mean."""
        junk = self._first.junk
        rows = np.arange(len(self.posed)) if junk is None else np.flatnonzero(junk < 0.5)
        if len(rows) == len(self.posed) or not has_both_halves(self.posed.half, rows):
            return self.posed, self.mean
        some = self.posed.part(rows)
        return some, mean_model(some, contrast=self.settings.contrast, mask=self.mask)

    @cached_property
    def _tree(self) -> SplittingClasses:
        s, some = self.settings, self._good[0]
        return SplittingClasses(some, self.mask, s.contrast, s.iterations, s.prior_factor, s.seed)

    def _classes(self, count: int, seed: int) -> ClassTrial:
        s, (some, mean) = self.settings, self._good
        start, splits = None, []
        if s.start == "split":
            start, splits = self._tree.grow(count, self.observer.listener), list(self._tree.splits)
            if start.shape[1] < count:
                self.observer.listener.say(f"no class can be split further: {start.shape[1]} of {count} classes")
                count = start.shape[1]
        model = fit_classes(
            some,
            count,
            start=start,
            mean=mean,
            mask=self.mask,
            iterations=s.iterations,
            T=s.prior_factor,
            seed=seed,
            listener=self.observer.listener,
        )
        return replace(self._trial(model), splits=splits)

    def _trial(self, model: FixedClasses) -> ClassTrial:
        evidence, posterior = held_out_class_evidence(self.posed, model, self.mean.sigma2)
        order = np.argsort(-posterior.sum(axis=0), kind="stable")
        table = PoseTable.unknown(len(self.posed))
        given = self.posed.particles.poses
        assert given is not None
        table.angles_deg, table.origin_px = given.angles_deg.copy(), given.shifts_A / self.posed.pixel_size_A
        table.class_number = posterior[:, order].argmax(axis=1)
        made = ClassTrial(
            posterior.shape[1],
            model.volumes[order],
            [h.volumes[order] for h in model.halves],
            model.fsc[order],
            table,
            posterior[:, order],
            evidence,
            model.iterations,
            migration=None if model.migration is None else model.migration[np.ix_(order, order)],
        )
        return made.with_junk() if self.settings.junk else made
