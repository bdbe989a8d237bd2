"""What tests need and programs do not: Hypothesis profiles.

Owns: settings that every test run of this project and of a backend's author shares. Refuses to know: the engine.
Next: `ferrum.testing.profiles`.
"""
