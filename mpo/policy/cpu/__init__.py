"""What serves CPUs alone; a GPU uses FlexAttention and torch's own kernels in its place."""
