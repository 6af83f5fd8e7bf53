"""The logistic function, powers and logarithms by polynomials, which the compiler vectorises."""

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


@part
def exp2(y):
    """Return 2^y of a float32 to within 2e-7 of it; 0 below the smallest normal number."""
    y = min(max(y, np.float32(-127.0)), np.float32(127.0))
    whole = np.floor(y + np.float32(0.5))
    x = (y - whole) * np.float32(0.6931471805599453)
    # The Taylor series of e^x, |x| < .35, by Horner.
    p = np.float32(1.0) + x / np.float32(7.0)
    for k in range(6, 0, -1):
        p = np.float32(1.0) + p * x / np.float32(k)
    return p * np.int32((np.int32(whole) + 127) << 23).view(np.float32)


@part
def log(x):
    """Return the natural logarithm of a float32 >= 1 to within 2e-7 of it, and of 1e-7."""
    bits = np.float32(x).view(np.int32)
    e = np.int32((bits - 0x3F2AAAAB) >> 23)  # x = m 2^e with m in [2/3, 4/3)
    m = np.int32(bits - (e << 23)).view(np.float32)
    f = (m - np.float32(1.0)) / (m + np.float32(1.0))
    q = f * f
    # log m = 2 artanh f, |f| <= .2
    series = np.float32(1 / 3) + q * (
        np.float32(1 / 5)
        + q * (np.float32(1 / 7) + q * (np.float32(1 / 9) + q * np.float32(1 / 11)))
    )
    return np.float32(e) * np.float32(0.6931471805599453) + np.float32(2.0) * f * (
        np.float32(1.0) + q * series
    )
