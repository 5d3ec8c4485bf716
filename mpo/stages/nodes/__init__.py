"""What each task reads, as typed records beside it: ``Config``, ``Settings``, ``Inputs``, and ``TASK``. No torch.

``Inputs`` is generic in what stands for a stage: a :class:`~mpo.cache.stage.Stage` where the graph is composed, that
stage's folder (``Path``) where the task runs.
"""
