"""An embedded synthetic world: prompts, demonstrations, a true reward and a judge, without network or weights."""
