"""Random inputs for every door of featviz: each is used or refused in one line, nothing else.

``python -m tests.fuzz --count 5000`` runs many, in processes of their own; tests/test_fuzz.py runs
a few in each test run. A strategy draws a :class:`~tests.fuzz.cases.Case`, which knows whether it
makes sense: nonsense that is accepted is a failure, and so is sense that is refused.
"""
