const GAMMABENCH_FILES = {"models.parquet":"c42b46032fdfe735","cells.parquet":"c42b46032fdfe735"};
