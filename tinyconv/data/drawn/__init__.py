"""Built-in drawn data sets, so that everything runs with no download.

Pictures are made by Pillow from a seed; results on them say so (`ArrayDataset.drawn` is True).
"""

from tinyconv.data.drawn.cats_and_dogs import drawn_cats_and_dogs
from tinyconv.data.drawn.digits import drawn_digits

__all__ = ["drawn_cats_and_dogs", "drawn_digits"]
