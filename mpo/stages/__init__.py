"""One file a stage: read manifests, call the room below, write one directory.

Every module has ``run(context: StageContext) -> None``. It is called in a process of its own (or in each process of a
group) and knows nothing but its context.
"""
