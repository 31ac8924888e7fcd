"""`glm-annotate evaluate`: how good scores, likelihoods and predicted tracks are, on data at hand.

Every module answers one question (`variants`, `perplexity`, `tracks`, `context`) with rows of
figures, which `output` writes. Nothing is trained or tuned here, and no label chooses a direction.
"""
