"""Arrays in, arrays out: the compiled arithmetic of livevec."""
