from microgpt.reference import *
from microgpt.reference import __all__ as __all__
