"""When a fit is kept: what data that it did not see gain by it, against the standard error of that gain."""

from __future__ import annotations

LEAST_SIGMA = 3.0  # standard errors that held-out data must gain more than


class HeldOutGain:
    """A fit with its held-out gain, as a base of the dataclasses that state one.

    Attributes
    ----------
    gain_nats, gain_error_nats : float
        Log-likelihood that data which the fit did not see gain by it, and its standard error.
    """

    gain_nats: float
    gain_error_nats: float

    @property
    def kept(self) -> bool:
        """Whether held-out data gain beyond doubt."""
        return bool(self.gain_nats > LEAST_SIGMA * self.gain_error_nats and self.gain_nats > 0)
