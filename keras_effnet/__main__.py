"""`python -m keras_effnet` is `keras-effnet`."""

import sys

from keras_effnet.cli import main

sys.exit(main())
