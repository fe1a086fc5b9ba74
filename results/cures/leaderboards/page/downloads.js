const GAMMABENCH_FILES = {"models.parquet":"5364fac0dea906fc","cells.parquet":"5364fac0dea906fc"};
