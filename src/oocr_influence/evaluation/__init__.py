"""What does this model know: scoring engine, scorers, beam search.

`plan.py` tokenises all sets once, `tree.py` scores them in one pass a group of questions
(`plain.py` is the readable reference), `metrics/` and `beam_search.py` turn scores into answers,
and `evaluate.py` runs it all on a model.
"""
