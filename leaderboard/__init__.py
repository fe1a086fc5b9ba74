"""How it is told: a pure function from records to what a person looks at."""

# A room of gammabench.

from leaderboard.boards import check_boards, render, write_boards
from leaderboard.compare import compare_folders, comparison_text
from leaderboard.export import export_cells, flat_cells
from leaderboard.figures.drawing import available as figures_available
from leaderboard.published_saes import published_summary
from leaderboard.terminal import summary

__all__ = [
    "check_boards",
    "compare_folders",
    "comparison_text",
    "export_cells",
    "figures_available",
    "flat_cells",
    "published_summary",
    "render",
    "summary",
    "write_boards",
]
