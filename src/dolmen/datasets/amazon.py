"""What the sets from Amazon's reviews have in common."""

from __future__ import annotations

from typing import Final

__all__ = ["CITATION", "TERMS", "TERMS_URL"]

CITATION: Final = (
    "Julian McAuley, Christopher Targett, Qinfeng Shi, Anton van den Hengel. 2015. Image-based Recommendations on "
    "Styles and Substitutes. SIGIR. https://doi.org/10.1145/2766462.2767755"
)
TERMS: Final = "for research; cite the authors"
TERMS_URL: Final = "https://cseweb.ucsd.edu/~jmcauley/datasets.html"
