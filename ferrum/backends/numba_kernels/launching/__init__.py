"""Launches of kernels: arrays become rows of words, which run on threads. Never imports Numba."""
