from .baselines import item_knn, popularity
from .correlation import (
    TemporalCorrelation,
    mutual_information,
    rank_correlation,
    temporal_correlation,
    temporal_strength,
)
from .grouped import GroupAUC, Weighting, gauc
from .lists import (
    catalogue_coverage,
    intra_list_diversity,
    mean_popularity,
    novelty,
    popularity_lift,
    tail_share,
)
from .metrics import (
    auc,
    calibration_ratio,
    expected_calibration_error,
    log_loss,
    normalized_entropy,
    relative_information_gain,
)
from .negatives import draw_negatives
from .progressive import Progressive
from .ranking import Candidates, CatalogueRanking, Ranks, Ties, rank_catalogue, sampled_ranks
from .significance import Comparison, Mean, compare, mean_of, ratio_of
from .splits import (
    GivenSplit,
    LeaveOneOut,
    Needs,
    PeopleSplit,
    PersonRatio,
    Prequential,
    Split,
    SplitRule,
    TemporalSplit,
)

__all__ = [
    "Candidates",
    "CatalogueRanking",
    "Comparison",
    "GivenSplit",
    "GroupAUC",
    "LeaveOneOut",
    "Mean",
    "Needs",
    "PeopleSplit",
    "PersonRatio",
    "Prequential",
    "Progressive",
    "Ranks",
    "Split",
    "SplitRule",
    "TemporalCorrelation",
    "TemporalSplit",
    "Ties",
    "Weighting",
    "auc",
    "calibration_ratio",
    "catalogue_coverage",
    "compare",
    "draw_negatives",
    "expected_calibration_error",
    "gauc",
    "intra_list_diversity",
    "item_knn",
    "log_loss",
    "mean_of",
    "mean_popularity",
    "mutual_information",
    "normalized_entropy",
    "novelty",
    "popularity",
    "popularity_lift",
    "rank_catalogue",
    "rank_correlation",
    "ratio_of",
    "relative_information_gain",
    "sampled_ranks",
    "tail_share",
    "temporal_correlation",
    "temporal_strength",
]
