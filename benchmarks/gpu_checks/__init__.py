"""What benchmarks/gpu.py runs: each check is a function of a Setup, whose docstring says what is held against what. Its
bound stands there before it is measured: what rounding may do to a log-probability by the dtype of the weights (NATS of
resources/model/agreement.py), or what is said beside it."""
