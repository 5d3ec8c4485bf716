"""Tables and figures of the papers: what runs they need at which scale, measured beside published numbers."""
