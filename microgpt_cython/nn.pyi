from microgpt.nn import *
