"""The commands that tell results: report, compare, compare-paper, export."""
