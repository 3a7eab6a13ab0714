r"""Stochastic minimisers behind one interface: a function of many parameter vectors at once, bounds, a budget, a seed.

SciPy's dual annealing and differential evolution, and small forms of what the field uses besides: simultaneous
perturbation (Spall 1992, IEEE Trans. Autom. Control 37, 332-341), particle swarms (Kennedy and Eberhart 1995; the
constricted form of Clerc and Kennedy 2002), and a genetic search with real numbers. They know nothing of images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.optimize

from verglas.errors import InputError
from verglas.types.arrays import FloatArray
from verglas.types.display import one_line

_CONSTRICTION, _PULL = 0.7298, 1.4962  # Clerc and Kennedy (2002)
_MEMBERS = 40
_ELITE = 4
_BLEND = 0.3  # a child lies on the line through its parents, up to this part of their distance beyond either


@dataclass(frozen=True)
class Task:
    """What is minimised.

    Attributes
    ----------
    values : callable
        (m, d) parameter vectors to (m,) costs.
    bounds : (d, 2) float64
        Lowest and highest value of each parameter.
    polish : callable, optional
        A local search from a vector to one that is no worse; used once, at the end.
    """

    values: Callable[[FloatArray], FloatArray]
    bounds: FloatArray
    polish: Callable[[FloatArray], FloatArray] | None = None


@one_line
@dataclass(frozen=True)
class Optimum:
    """The best that was seen.

    Attributes
    ----------
    x : (d,) float64
    value : float
        Of x.
    before_polish : float
        What the stochastic search alone had reached.
    evaluations : int
        Of the cost, without the local search's.
    """

    x: FloatArray
    value: float
    before_polish: float
    evaluations: int


@dataclass
class _Search:
    """A task with its budget; remembers the best vector that was evaluated."""

    task: Task
    budget: int
    rng: np.random.Generator
    best: FloatArray = field(default_factory=lambda: np.empty(0))
    value: float = np.inf
    spent: int = 0

    @property
    def low(self) -> FloatArray:
        return self.task.bounds[:, 0]

    @property
    def width(self) -> FloatArray:
        return self.task.bounds[:, 1] - self.task.bounds[:, 0]

    @property
    def over(self) -> bool:
        return self.spent >= self.budget

    def draw(self, count: int) -> FloatArray:
        """Vectors at random within the bounds."""
        return self.low + self.width * self.rng.random((count, len(self.width)))

    def inside(self, x: FloatArray) -> FloatArray:
        return np.clip(x, self.low, self.low + self.width)

    def cost(self, x: FloatArray) -> FloatArray:
        costs = np.asarray(self.task.values(x), np.float64)
        self.spent += len(x)
        lowest = int(np.argmin(costs))
        if costs[lowest] < self.value:
            self.best, self.value = x[lowest].copy(), float(costs[lowest])
        return costs


def _dual_annealing(search: _Search) -> None:
    """Generalised simulated annealing with SciPy's local search left out: the task has its own."""
    scipy.optimize.dual_annealing(
        lambda x: float(search.cost(x[None])[0]),
        search.task.bounds,
        maxfun=search.budget,
        maxiter=search.budget,
        no_local_search=True,
        **_seed_keyword(scipy.optimize.dual_annealing, search.rng),
    )


def _differential_evolution(search: _Search) -> None:
    members = max(5, min(_MEMBERS, search.budget // 10))
    scipy.optimize.differential_evolution(
        lambda x: search.cost(np.atleast_2d(x.T)) if x.ndim == 2 else float(search.cost(x[None])[0]),
        search.task.bounds,
        init=search.draw(members),
        maxiter=max(1, search.budget // members - 1),
        polish=False,
        updating="deferred",
        vectorized=True,
        tol=0,
        **_seed_keyword(scipy.optimize.differential_evolution, search.rng),
    )


def _seed_keyword(function: Callable[..., Any], rng: np.random.Generator) -> dict[str, Any]:
    """SciPy renamed the argument in 1.15; both names take a generator."""
    return {"rng": rng} if "rng" in function.__code__.co_varnames else {"seed": rng}


def _simultaneous_perturbation(search: _Search) -> None:
    """Two evaluations along one random sign vector stand for the gradient; several starts share the budget."""
    starts = 4
    steps = max(2, search.budget // (2 * starts))
    for _ in range(starts):
        x = search.draw(1)[0]
        for k in range(steps):
            if search.over:
                return
            # Spall's decay exponents, 0.602 and 0.101.
            reach = 0.1 / (k + 1) ** 0.101
            signs = search.rng.choice((-1.0, 1.0), len(x))
            both = search.cost(search.inside(x + reach * search.width * signs * np.array([[1.0], [-1.0]])))
            slope = (both[0] - both[1]) / (2 * reach)
            rate = 0.5 / (k + 1 + 0.1 * steps) ** 0.602
            # The step's length is that of the rate, whatever the cost's unit: the sign vector has the norm sqrt(d).
            x = search.inside(x - rate * search.width * signs * np.tanh(slope / max(np.abs(both).mean(), 1e-12)))
        search.cost(x[None])


def _particle_swarm(search: _Search) -> None:
    x = search.draw(_MEMBERS)
    velocity = 0.1 * search.width * search.rng.standard_normal(x.shape)
    own, own_cost = x.copy(), search.cost(x)
    while not search.over:
        toward_own, toward_best = search.rng.random((2, *x.shape))
        velocity = _CONSTRICTION * velocity + _PULL * (toward_own * (own - x) + toward_best * (search.best - x))
        x = search.inside(x + velocity)
        costs = search.cost(x)
        better = costs < own_cost
        own[better], own_cost[better] = x[better], costs[better]


def _genetic(search: _Search) -> None:
    """Tournaments of two, blended crossover, mutations that shrink with the budget, the best few kept."""
    x = search.draw(_MEMBERS)
    costs = search.cost(x)
    while not search.over:
        order = np.argsort(costs, kind="stable")
        rivals = search.rng.integers(0, len(x), (2, 2, len(x) - _ELITE))
        parents = np.where(costs[rivals[:, 0]] <= costs[rivals[:, 1]], rivals[:, 0], rivals[:, 1])
        share = search.rng.uniform(-_BLEND, 1 + _BLEND, (len(x) - _ELITE, x.shape[1]))
        children = share * x[parents[0]] + (1 - share) * x[parents[1]]
        left = max(0.02, 1 - search.spent / search.budget)
        mutated = search.rng.random(children.shape) < 2 / x.shape[1]
        children += mutated * 0.25 * left * search.width * search.rng.standard_normal(children.shape)
        x = np.concatenate([x[order[:_ELITE]], search.inside(children)])
        costs = np.concatenate([costs[order[:_ELITE]], search.cost(x[_ELITE:])])


OPTIMISERS: dict[str, Callable[[_Search], None]] = {
    "annealing": _dual_annealing,
    "differential-evolution": _differential_evolution,
    "spsa": _simultaneous_perturbation,
    "particle-swarm": _particle_swarm,
    "genetic": _genetic,
}


def minimise(task: Task, method: str, *, evaluations: int = 4000, seed: int = 0) -> Optimum:
    """The lowest cost that a stochastic search finds with a budget of evaluations.

    Parameters
    ----------
    task : Task
        Cost, bounds, local search.
    method : str
        A name of :data:`OPTIMISERS`: annealing, differential-evolution, spsa, particle-swarm, genetic.
    evaluations : int
        Of the cost, about.
    seed : int
        The same seed gives the same result.

    Returns
    -------
    Optimum

    Raises
    ------
    InputError
        An unknown method, bounds that are empty or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.initial_model.optimisers import Task, minimise
    >>> task = Task(lambda x: ((x - 0.3) ** 2).sum(axis=1), np.array([[-1.0, 1.0]] * 3))
    >>> [minimise(task, m, evaluations=2000).value < 0.05 for m in ("annealing", "genetic", "particle-swarm")]
    [True, True, True]
    """
    if method not in OPTIMISERS:
        raise InputError(f"minimise: expected method {', '.join(OPTIMISERS)}, got {method!r}")
    bounds = np.asarray(task.bounds, np.float64)
    if (
        bounds.ndim != 2
        or bounds.shape[1] != 2
        or not np.isfinite(bounds).all()
        or (bounds[:, 0] >= bounds[:, 1]).any()
    ):
        raise InputError("minimise: expected finite bounds (d, 2), each lower below its upper")
    search = _Search(Task(task.values, bounds, task.polish), max(evaluations, _MEMBERS), np.random.default_rng(seed))
    OPTIMISERS[method](search)
    x, value = search.best, search.value
    if task.polish is not None:
        polished = np.asarray(task.polish(x), np.float64)
        after = float(task.values(polished[None])[0])
        if after < value:
            x, value = polished, after
    return Optimum(x, value, search.value, search.spent)
