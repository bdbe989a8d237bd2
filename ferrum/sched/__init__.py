"""Which tokens run in the next step. Next: `ferrum.sched.sequence`."""
