"""Documents of simulated runs, good and hostile, without a RunEngine."""
