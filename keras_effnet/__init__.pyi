"""The public names of the package and where they live; `__init__.py` reads them here."""

from . import baselines as baselines
from . import errors as errors
from . import explain as explain
from . import export as export
from . import scaling as scaling
from . import train as train
from . import transfer as transfer
from .applications import EfficientNet as EfficientNet
from .applications import EfficientNetB0 as EfficientNetB0
from .applications import EfficientNetB1 as EfficientNetB1
from .applications import EfficientNetB2 as EfficientNetB2
from .applications import EfficientNetB3 as EfficientNetB3
from .applications import EfficientNetB4 as EfficientNetB4
from .applications import EfficientNetB5 as EfficientNetB5
from .applications import EfficientNetB6 as EfficientNetB6
from .applications import EfficientNetB7 as EfficientNetB7
from .applications import EfficientNetB8 as EfficientNetB8
from .applications import EfficientNetL2 as EfficientNetL2
from .applications import EfficientNetLite0 as EfficientNetLite0
from .applications import EfficientNetLite1 as EfficientNetLite1
from .applications import EfficientNetLite2 as EfficientNetLite2
from .applications import EfficientNetLite3 as EfficientNetLite3
from .applications import EfficientNetLite4 as EfficientNetLite4
from .costs import cost as cost
from .export.evaluation import evaluate as evaluate
from .network.conventions import preprocess_input as preprocess_input
from .pictures.labels import decode_predictions as decode_predictions
from .pictures.reading import load_image as load_image
from .scaling import CompoundScaling as CompoundScaling
from .weights import load_weights as load_weights

__version__: str
