"""One table of tolerances, a reason beside each. A number is never loosened to make a test pass."""

# A float32 sine of a phase reduced in float64 (cpp/math/trig.h: 3e-7), times float32 scale and envelope.
CTF_ABS = 1e-6
