"""Fuzzing of the codec: `properties` says what must hold, `case` what an input means, `corpus` keeps the inputs, and
`target` and `__main__` look for more of them. Only the last two need atheris."""
