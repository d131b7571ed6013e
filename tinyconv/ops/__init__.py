"""The engine to read: the reference forward and backward of every operation, in plain array code.

Names of arrays: x, w, b inputs, weights, bias; y output; gx, gw, gb, gy their gradients. Names of
sizes: N images, C channels in, O channels out, H W input, OH OW output, KH KW kernel.

`xp` is numpy or cupy. forward returns y and `saved`, whatever backward needs to know of this call;
backward is told by `needs` which of the inputs' gradients are wanted. A good order to read:
activation, elementwise, linear, window, conv, pool, norm, loss, update.
"""
