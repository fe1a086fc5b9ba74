const GAMMABENCH_FILES = {"models.parquet":"88ebd89dd799003d","cells.parquet":"88ebd89dd799003d"};
