"""The engine to read: the reference forward and backward of every operation, in plain array code.

Names of arrays: x, w, b inputs, weights, bias; y output; gx, gw, gb, gy their gradients. Names of
sizes: N images, C channels in, O channels out, H W input, OH OW output, KH KW kernel.
`xp` is numpy or cupy. A good order to read: linear, activation, window, conv, pool, norm, loss.
"""
