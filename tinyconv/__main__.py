"""python -m tinyconv"""

from tinyconv.cli import main

main()
