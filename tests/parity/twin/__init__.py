"""An engine written for obviousness, and the events it understands: the oracle that the kernels are held to."""
