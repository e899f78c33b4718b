"""Models that follow a sequence: what comes next, from what came before."""
