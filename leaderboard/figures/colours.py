"""The colours of Okabe and Ito (https://jfly.uni-koeln.de/color/).

They are told apart with any common colour blindness.
"""

from __future__ import annotations

BLACK, GREY = "#222222", "#8c8c8c"
ORANGE, SKY, GREEN = "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, RED, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"

# Causes of death, as on the page: hues that neither arms nor domains have, told apart by their
# lightness too.
MEAN, SPECTRUM, NEITHER = "#882255", "#74741f", "#868f99"
