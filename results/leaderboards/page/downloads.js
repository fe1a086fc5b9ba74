const GAMMABENCH_FILES = {"models.parquet":"61ca750c0edd777e","cells.parquet":"61ca750c0edd777e"};
