"""What is assumed of the microscope because nobody has said it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from verglas.io.micrographs import SHARED
from verglas.optics.fit import CtfSettings

_WORDS = {
    "voltage_kV": ("{:g} kV", "--voltage"),
    "cs_mm": ("Cs {:g} mm", "--cs"),
    "amplitude_contrast": ("amplitude contrast {:g}", "--amplitude-contrast"),
}


def assumed_sentence(given: Collection[str], known: Sequence[Mapping[str, float]]) -> str:
    """What is assumed, and how to say otherwise; empty where everything has been said.

    Parameters
    ----------
    given : collection of str
        What the user named: "voltage_kV", "cs_mm", "amplitude_contrast".
    known : sequence of mapping
        Of each micrograph, what its STAR file says, by RELION's labels.

    Examples
    --------
    >>> from verglas.run.assumed import assumed_sentence
    >>> assumed_sentence(["cs_mm"], [{"rlnVoltage": 200.0}, {}])
    'assumed of the microscope, as neither options nor a STAR file say: 300 kV (--voltage) for 1 of 2 micrographs, \
amplitude contrast 0.1 (--amplitude-contrast)'
    >>> assumed_sentence(["voltage_kV", "cs_mm", "amplitude_contrast"], [{}])
    ''
    """
    default, parts = CtfSettings(), []
    for (name, (words, option)), label in zip(_WORDS.items(), SHARED, strict=True):
        without = 0 if name in given else sum(label not in one for one in known)
        if without:
            some = f" for {without} of {len(known)} micrographs" if without < len(known) else ""
            parts.append(f"{words.format(getattr(default, name))} ({option}){some}")
    return f"assumed of the microscope, as neither options nor a STAR file say: {', '.join(parts)}" if parts else ""
