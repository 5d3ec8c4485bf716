"""Multi-preference alignment of language models: set-level losses, regimes, evaluation.

``mpo.losses`` needs torch alone and serves any trainer; ``python -m mpo.run`` runs a whole experiment.
"""

__version__ = "0.4.0"
