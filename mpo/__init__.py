"""Multi-preference alignment of language models: set-level losses, regimes, evaluation.

``mpo.losses`` needs torch alone and serves any trainer; ``python -m mpo.run`` runs a whole experiment.
"""

from mpo.moved import keep_old_names

__version__ = "0.4.0"
keep_old_names()
