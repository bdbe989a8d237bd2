"""Code for tests only: Hypothesis profiles, stub engines, strict backends, the simulation.

Owns: settings and test doubles that this project's tests share with those of a backend's author. Refuses to know: what
is tested. Next: `ferrum.testing.profiles`.
"""
