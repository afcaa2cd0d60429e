from microgpt.data import *
