"""Intervals and tests. Pure functions; nothing here knows of records or tables.

`seeds` compares over repeated trainings, `items` over test items, `ranks` over
settings, `power` says what a number of seeds can show, and `prediction` where one more
of them lies.
"""

from kdbench.stats.items import McNemar as McNemar
from kdbench.stats.items import bootstrap_items as bootstrap_items
from kdbench.stats.items import mcnemar as mcnemar
from kdbench.stats.items import unpack as unpack
from kdbench.stats.power import detectable as detectable
from kdbench.stats.power import seeds_needed as seeds_needed
from kdbench.stats.prediction import Prediction as Prediction
from kdbench.stats.prediction import level_of_each as level_of_each
from kdbench.stats.prediction import prediction as prediction
from kdbench.stats.ranks import Ranks as Ranks
from kdbench.stats.ranks import profile as profile
from kdbench.stats.ranks import rank as rank
from kdbench.stats.seeds import Interval as Interval
from kdbench.stats.seeds import Paired as Paired
from kdbench.stats.seeds import holm as holm
from kdbench.stats.seeds import interval as interval
from kdbench.stats.seeds import least_p as least_p
from kdbench.stats.seeds import not_worse as not_worse
from kdbench.stats.seeds import paired as paired
from kdbench.stats.seeds import sign_flip as sign_flip
