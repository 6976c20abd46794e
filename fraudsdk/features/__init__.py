"""Encoded transaction and memory in, one float32 row out: the declared features and the kernels that compute them."""
