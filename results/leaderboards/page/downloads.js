const GAMMABENCH_FILES = {"models.parquet":"f250c43927b9347a","cells.parquet":"f250c43927b9347a"};
