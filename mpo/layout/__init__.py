"""Response sets as rows of tokens: padded batches, packing to a budget, buckets of shapes."""
