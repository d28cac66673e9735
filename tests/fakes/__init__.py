"""Fakes, test data and helpers that tests share."""
