"""What goes into every archive. Here, too, it is imported by the names that it has there: `vit_core`, not `handler.vit_core`.

Importing this package puts its folder on Python's path, as TorchServe does with that of an archive.
"""

import sys
from pathlib import Path

FOLDER = Path(__file__).parent
sys.path.append(str(FOLDER))
