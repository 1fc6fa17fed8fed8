"""The shift with a learnt direction, and the convolution that computes half of its channels."""
