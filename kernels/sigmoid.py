"""The logistic function as a quotient of polynomials, which the compiler puts into registers."""

import numpy as np

from kernels.policy import part

SATURATED = np.float32(16.0)  # from here on 1 is nearer in float32 than two of its steps


@part
def sigmoid(x):
    """Return 1 / (1 + exp(-x)) of a float32, to within 3e-7, and exactly 0 or 1 beyond 16.

    With t = tanh(x / 4) it is (1 + t)^2 / (2 + 2 t^2), and t is the quotient n / d of the seventh
    convergent of Lambert's continued fraction (Histoire de l'Academie de Berlin, 1761).
    """
    z = np.float32(0.25) * x
    q = z * z
    n = z * (np.float32(135135.0) + q * (np.float32(17325.0) + q * (np.float32(378.0) + q)))
    d = np.float32(135135.0) + q * (
        np.float32(62370.0) + q * (np.float32(3150.0) + q * np.float32(28.0))
    )
    between = (d + n) * (d + n) / (np.float32(2.0) * (d * d + n * n))
    above = np.float32(1.0) if x > SATURATED else between
    return np.float32(0.0) if x < -SATURATED else above
