"""The garbage collector in a process that makes the same objects again and again."""

import gc

#: Objects that come to live between two collections of young ones, 700 by default. A batch has
#: thousands alive at once, all of them freed without the collector; what it then walks over in
#: vain took a seventh of the time. So many take it 3 ms, once in some 800 spectra.
YOUNG = 50_000


def settle() -> None:
    """Leave out what is loaded now, which stays, and look for garbage less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])
