"""What 2D classification is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from verglas.types.settings import JobSettings, accept_former_names, setting


@accept_former_names
@dataclass(frozen=True)
class Class2DSettings(JobSettings, job="classify2d"):
    """How :func:`classify2d` works; every default is meant to be left alone.

    Attributes
    ----------
    classes : int
        K, classes sought. Particles that noise alone explains as well as any class go to one more, the empty class.
    diameter_A : float, optional
        Diameter of the soft circle that images wear in the search; four fifths of the box by default.
    max_resolution_A : float
        Finest data that classes and poses are judged by. Averages and their correlation reach further.
    initial_resolution_A : float
        Where the search begins.
    shift_range_A, step_deg : float, optional
        Largest shift searched (default: an eighth of the diameter, 5 to 20 A), and spacing of in-plane angles (default:
        what the resolution of the stage can tell apart).
    prior_factor : float
        T: the signal power that the averages are filtered by is taken this many times larger than measured.
    balance : float
        How far the prior may favour small classes over large ones, nats either way, so that the surest average does not
        draw in every uncertain particle; 0: shares of classes as found (plain expectation maximisation).
    iterations : int
        Most iterations after the seeding.
    start : {"seeds", "random", "split"}
        ``"seeds"``: over-many single images, spread by their likelihoods, then grouped to K. ``"random"``: averages of
        random thirds of images, unaligned, as many programs do. ``"split"``: hierarchical, as in CL2D: two such
        averages, then levels of twice as many classes, the largest split first.
    null_class : bool
        Whether the empty class (a reference of zero) competes for particles.
    ctf : bool
        Whether the CTF is in the model; False for images that have none.
    mini_batch : int, optional
        Images per iteration before the last ones; by default all below 20,000 images, then 200 per class, at least
        10,000. 0: always all.
    mask_m_step : bool
        Averages and noise from masked images, as in the search, until the last iteration: each is then exact
        expectation maximisation. The last uses whole images, so that what the CTF spreads beyond the mask comes back.
        If False, all use whole images; neighbours of particles then count as noise.
    seed : int
        Same seed, same result, whatever threads and memory.
    """

    classes: int = setting(50, "Number of classes", at_least=1, flags=("-K",), former=("n_classes",))
    diameter_A: float | None = setting(
        None, "Diameter of the mask", more_than=0, default_words="four fifths of the box"
    )
    max_resolution_A: float = setting(10.0, "Finest data that classes are judged by", more_than=0)
    initial_resolution_A: float = setting(
        30.0, "Finest data where the search begins", more_than=0, former=("start_resolution_A",)
    )
    shift_range_A: float | None = setting(
        None, "Largest shift searched", more_than=0, default_words="an eighth of the diameter, 5 to 20 A"
    )
    step_deg: float | None = setting(
        None, "Spacing of in-plane angles", more_than=0, default_words="what the resolution can tell apart"
    )
    prior_factor: float = setting(
        2.0, "Factor T of the signal power that averages are filtered by", more_than=0, former=("regularisation",)
    )
    balance: float = setting(
        6.0, "Largest prior that favours small classes, in nats (units of the log-likelihood); 0 for none", at_least=0
    )
    iterations: int = setting(30, "Most iterations after the seeding", at_least=1)
    start: Literal["seeds", "random", "split"] = setting(
        "seeds", "From single images, from averages of random thirds, or by splitting level by level"
    )
    null_class: bool = setting(True, "An empty class competes for what noise explains")
    ctf: bool = setting(True, "The CTF is in the model; without it for images that have none")
    mini_batch: int | None = setting(
        None,
        "Particles per iteration, 0 for all",
        at_least=0,
        default_words="all below 20,000, then 200 per class, at least 10,000",
    )
    mask_m_step: bool = setting(True, "Averages and noise from masked images until the last iteration")
    seed: int = setting(0, "Seed of everything random", at_least=0)


@dataclass(frozen=True)
class BiasSettings(JobSettings, job="check_bias"):
    """How :func:`check_bias` aligns data and noise.

    Attributes
    ----------
    diameter_A : float, optional
        Diameter of the soft circle that images wear; four fifths of the box by default.
    max_resolution_A : float
        Finest data of the alignment.
    shift_range_A : float
        Largest shift searched.
    step_deg : float, optional
        Spacing of in-plane angles; by default what the resolution can tell apart.
    ctf : bool
        Whether the CTF is in the model; False for images that have none.
    seed : int
        Of the noise.
    """

    diameter_A: float | None = setting(
        None, "Diameter of the mask", more_than=0, default_words="four fifths of the box"
    )
    max_resolution_A: float = setting(20.0, "Finest data of the alignment", more_than=0)
    shift_range_A: float = setting(12.0, "Largest shift searched", more_than=0)
    step_deg: float | None = setting(
        None, "Spacing of in-plane angles", more_than=0, default_words="what the resolution can tell apart"
    )
    ctf: bool = setting(True, "The CTF is in the model; without it for images that have none")
    seed: int = setting(0, "Seed of the noise", at_least=0)
