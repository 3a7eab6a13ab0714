"""One table of tolerances, a reason beside each. A number is never loosened to make a test pass."""

# A float32 sine of a phase reduced in float64 (cpp/math/trig.h: 3e-7), times float32 scale and envelope.
CTF_ABS = 1e-6

# FSC: float64 sums of products of a float64 transform (a few ulp times the shell's condition, 1/sqrt(n) of noise).
FSC_FLOAT64 = 1e-10

# FSC of float32 transforms: rounding of 1e-7 per element averages out over a shell, the worst is the shell of few.
FSC_FLOAT32 = 1e-6

# Transforms of at most a few thousand elements, relative to the largest: float64 leaves 1e-15 log2(n), float32 1e-7.
FOURIER_FLOAT64 = 1e-12
FOURIER_FLOAT32 = 1e-6
# float32 transforms of up to 1024 values against double, relative to the largest output: at most 10 passes, each
# adding a rounding of 6e-8 per operation, growing as the square root of their number.
FFT1D_REL = 1e-6


# Euler angles in float64: a dozen products of numbers below 1 lose a few of their 16 digits.
EULER_ABS = 1e-12

# RELION prints its symmetry matrices with six digits, from axes stored with six: 5e-6 is the largest difference.
RELION_SYMMETRY_ABS = 1e-5
# Kaiser-Bessel, 4 taps, 1.5x, for a map that fills three quarters of the box: 5e-4 measured (docs/kernels.md, table 1).
PROJECT_RELATIVE = 1e-3
# 6 taps on 1.25x: 2e-5 measured, of which float32 takes 1e-6.
PROJECT_FINE_RELATIVE = 5e-5
# ops.refine_pose with 8 taps against float64 Fourier sums: float32 interpolation (3e-7), phases and sums of a block.
POSE_SCORE_RELATIVE = 2e-6
# ... and its derivatives: those of the taps lose one digit more.
POSE_FINE_DERIVATIVE_RELATIVE = 2e-5
# Fisher information with the default 4 taps: the window's derivative is 1 % accurate at the band's edge.
POSE_DERIVATIVE_RELATIVE = 0.03
# <P x, y> against <x, P* y>: both sides are float32 transforms of the same numbers; the issue asks 1e-5.
ADJOINT_RELATIVE = 1e-5

# Sums of a GPU against the CPU's: both float64; pixels times CTF and weight are rounded to float32 (6e-8) first, phases
# come from a polynomial (3e-7) instead of a table.
INSERT_DEVICE_RELATIVE = 1e-6

# Kaiser-Bessel window of 6 cells at 1.5 times padding: aliasing 2e-5 to 8e-5 of the image's norm on white noise that
# fills the box to its corners (the worst case); float32 sums add 1e-6.
POLAR_REL = 1.2e-4
# The accuracy promised for polar samples against a non-uniform FFT.
POLAR_NUFFT_REL = 1e-3
# ops.scatter: float32 tables (3e-7 each) and sums over a few thousand atoms of either sign; root mean square.
SCATTER_L2 = 2e-6

# A correlation of unit-variance float32 images: one forward and one inverse transform (FFT1D_REL each way, in 2D),
# relative to the product of the two norms.
CORRELATE_REL = 3e-6

# Newton on the exact correlation, noise-free: third order in the last step (<= 0.03 px); the row asks for 0.05.
PEAK_NEWTON_PX = 0.01

# Three-point parabola through a band-limited peak: a sinc is misread by up to 0.11 px on each axis, and the offset of
# one axis tilts the cut through the other.
PEAK_PARABOLA_PX = 0.25


# A zero of the CTF found in closed form, put back into the float64 phase: rounding of a few hundred radians.
CTF_ZERO_ABS = 1e-9
# Ring correlation: float32 sampling (16 products) and transforms of one ring; the peak's parabola on angles sampled
# twice as densely as the outer ring misses up to 1e-3 of the curve's height on white noise.
RINGS_REL = 2e-3

# Its angle, noise-free, for a particle of blobs of sigma 1.6 px: cubic convolution and the parabola.
RING_ANGLE_DEG = 0.05
# Rounding to the nearest float16 has 11 significant bits.
FLOAT16_REL = 2.0**-11
# cryoSPARC stores rotation vectors as float32: about 2e-7 of up to 2 pi, in degrees 7e-5 at worst (issue: 1e-4).
CS_ROTATION_DEG = 1e-4

# align2d, noise-free, blobs of sigma 1.6 px: alternating steps converge to the cubic interpolations' own error.
ALIGN2D_DEG = 0.1
ALIGN2D_PX = 0.03
# What the issue asks of the exact data: projections against the map's own transform, absolute scale, and the 1 % noise
# of the images over their band-limited signal (1.4 % with the frequencies in use).
EXACT_PROJECTION_RELATIVE = 1e-3
EXACT_SCALE = 1e-3
EXACT_IMAGES_RESIDUAL = 0.0142
# Residual of the iterated density.
GRIDDING_RESIDUAL = 1e-2
# Change of a map under an operation of its group, relative to its largest value.
SYMMETRY_INVARIANCE = 1e-4

# Scores are float32 sums of some thousand products (6e-8 each, growing as the square root of their number): error
# relative to the largest |L| of the problem, at least one nat.
SCORE_FLOAT32 = 1e-5
# What the errors above leave of posterior probabilities, as the engine's description promises.
SCORE_POSTERIOR_MASS = 1e-3
# rms error of the polar sum of L against the lattice sum, relative to the standard deviation of L over poses near and
# far from the truth: measured 0.94 % (R = 12), 0.55 % (R = 24), 0.44 % (R = 24, ring spacing 1/2), nearly all of it
# from lattice points around the jagged edge of the last ring.
SCORE_POLAR_SUM = 0.01
# Polar against lattice sum of a clean image's power: the lattice's jagged edge at R + 1/2 holds a few pixels more or
# less than the ring.
SCORE_CLOSED_FORM = 0.01

# maximise against the Fourier sum over every candidate: polar sampling of the images (POLAR_REL, white noise), twice,
# and a 6-tap window.
MAXIMISE_REL = 5e-4
# float64 sums in another order, then float32 harmonics: the last bit of float32 may flip.
MAXIMISE_ORDER_REL = 1e-6

# ops.ctf_score: phases of up to 70 turns in float32, 6e-8 of them for each of the three roundings on the way, times
# 2 pi and, in the derivatives, twice that; relative to the norms of the vectors whose products are summed.
CTF_SCORE_REL = 1.5e-4

# ops.peaks: the quadratic in float64 from float32 pixels near 1 (6e-8 each); its vertex divides by a curvature that
# random pixels make as small as they like, hence the digits left over.
PEAKS_ABS = 2e-4

# Sums of a hundred float64 products.
CENTRE_OF_MASS_PX = 1e-10
# Least squares over pixels leaves what other angular orders, multiples of four, have in common with order 0
# on the square grid.
PROLATE_AVERAGE_RELATIVE = 1e-3
# Normalised cross-correlation: float32 transforms of an image with a mean of 40 deviations, whose correlation with
# zero-mean templates cancels.
NCC_ABS = 1e-4
# 1 at a copy: what compression leaves out (1e-4 of the power of a template) and the above.
NCC_COPY = 1e-3
# ops.match: a chain of at most a few hundred float32 products (6e-8 each), relative to the two vectors' lengths.
MATCH_REL = 1e-6

# Passes and jobs on a GPU against the CPU (tests/test_refine_device.py). Scores are float32 sums of some hundred
# products, on the GPU of operands split in two TF32 numbers: 5e-5 nats of evidences of 100, measured.
DEVICE_EVIDENCE_NATS = 2e-4
DEVICE_PROBABILITY = 1e-4  # follows from it
# Poses on a grid are the same; continuous ones end within rounding of the same maximum (9e-4 degrees measured).
DEVICE_ANGLE_DEG = 0.01
# Sums weighted by those posteriors at those poses: 1e-5 measured.
DEVICE_SUMS = 5e-5
# The same where weak candidates are drawn for the sums: a draw falls to a neighbour on the grid; 4e-3 measured.
DEVICE_DRAWN = 1e-2
# The same contributions in another order: float64, but slices of harmonics are float32 before they are inserted.
DEVICE_ORDER = 1e-6
# Maps, by division: 3e-7 measured; by as many steps of conjugate gradients: 1.4e-6.
DEVICE_MAP = 1e-5
# ops.common_lines: float32 chains of a few tens of products, relative to the largest score; in ops.common_line_scores
# also lines interpolated in float32.
COMMON_LINES_REL = 2e-6

# ops.warp with one shift per frame: float32 taps from a table (2e-6 each) and sums of 14 x 14 products of either sign.
WARP_RELATIVE = 2e-5
# ... with a field: taps between the promised 1 % of the band's edge; waves of up to 0.8 Nyquist on both axes.
WARP_BAND = 0.01

# float32 products and sums over a row, relative to the sum of amplitudes that a patch could reach at most.
SHIFT_SCORE_RELATIVE = 1e-6
# radon: positions on a line are float32, so the fraction of a pixel is off by up to 1e-4 at its far end
RADON = 2e-4

# ops.convolve: float32 sums of some hundred products, relative to the sum of their sizes.
CONVOLUTION_RELATIVE = 1e-6
# A network's gradient against differences of its loss, relative, along random directions: rectifiers bend in between
# (1.5 % measured).
NETWORK_SLOPE = 0.06

# Maps against dense least squares in float64 (test_dense_least_squares.py). Right sides and samples on grid points are
# exact but for float32 sums and transforms (1e-6 measured).
DENSE_EXACT = 1e-5
# The normal operator's kernel is gridded with a window made for three quarters of the box: 4e-5 and 7e-5 measured.
DENSE_NORMAL = 2e-4
# Sums divided on the grid of 1.5 or 3 times the points: 0.12 and 0.07 measured, of which the first shells (few points,
# a CTF that rises steeply) and what the ball forbids are most. With a prior from a wrong mean weight 0.21 and 0.14.
DENSE_M_STEP = 0.15
DENSE_M_STEP_FINE = 0.1

# Iterative solvers against the solution of the dense system: what the issue of them asks.
SOLVED = 1e-4
