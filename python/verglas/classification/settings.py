"""What 2D classification is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from verglas.errors import InputError

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Class2DSettings:
    """How :func:`classify2d` works; every default is meant to be left alone.

    Attributes
    ----------
    n_classes : int
        K, classes sought. Particles that noise alone explains as well as any class go to one more, the empty class.
    diameter_A : float, optional
        Diameter of the soft circle that images wear in the search; four fifths of the box by default.
    max_resolution_A : float
        Finest data that classes and poses are judged by. Averages and their correlation reach further.
    start_resolution_A : float
        Where the search begins.
    shift_range_A, step_deg : float, optional
        Largest shift searched (default: an eighth of the diameter, 5 to 20 A), and spacing of in-plane angles (default:
        what the resolution of the stage can tell apart).
    regularisation : float
        T: the signal power that the averages are filtered by is taken this many times larger than measured.
    balance : float
        How far the prior may favour small classes over large ones, nats either way, so that the surest average does not
        draw in every uncertain particle; 0: shares of classes as found (plain expectation maximisation).
    iterations : int
        Most iterations after the seeding.
    start : {"seeds", "random", "split"}
        ``"seeds"``: over-many single images, spread by their likelihoods, then grouped to K. ``"random"``: averages of
        random thirds of images, unaligned, as many programs do. ``"split"``: hierarchical, as in CL2D: four such
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
    memory_GB : float
        Most that cached images and samples may take; beyond it they are read again in each iteration.
    threads : int, optional
        Threads; all by default.
    device : str
        ``"cpu"``, or ``"cuda:<number>"``: where images are compared with averages and added up.
    progress : callable, optional
        Called with (images done, images in all) of the iteration.
    log : callable, optional
        Called with one line of text per iteration and event.
    """

    n_classes: int = 50
    diameter_A: float | None = None
    max_resolution_A: float = 10.0
    start_resolution_A: float = 30.0
    shift_range_A: float | None = None
    step_deg: float | None = None
    regularisation: float = 2.0
    balance: float = 6.0
    iterations: int = 30
    start: str = "seeds"
    null_class: bool = True
    ctf: bool = True
    mini_batch: int | None = None
    mask_m_step: bool = True
    seed: int = 0
    memory_GB: float = 4.0
    threads: int | None = None
    device: str = "cpu"
    progress: Progress | None = None
    log: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be done."""
        for name in ("max_resolution_A", "start_resolution_A", "regularisation", "memory_GB"):
            if not getattr(self, name) > 0:
                raise InputError(f"classify2d: expected a positive {name}, got {getattr(self, name)}")
        for name in ("diameter_A", "shift_range_A", "step_deg"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"classify2d: expected a positive {name}, got {value}")
        if not self.balance >= 0:
            raise InputError(f"classify2d: expected a balance of 0 nats or more, got {self.balance}")
        if self.n_classes < 1 or self.iterations < 1:
            raise InputError(
                f"classify2d: expected at least 1 class and 1 iteration, got {self.n_classes} and {self.iterations}"
            )
        if self.start not in ("seeds", "random", "split"):
            raise InputError(f"classify2d: start: expected 'seeds', 'random' or 'split', got {self.start!r}")

    def say(self, line: str) -> None:
        """One line of the log."""
        if self.log is not None:
            self.log(line)
