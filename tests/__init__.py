"""Tests of coulee. A package, so that their helpers can be imported by name."""
