const GAMMABENCH_FILES = {"models.parquet":"a12e7e68c65b4db5","cells.parquet":"a12e7e68c65b4db5"};
