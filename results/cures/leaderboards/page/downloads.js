const GAMMABENCH_FILES = {"models.parquet":"c8721bfd0d32b600","cells.parquet":"c8721bfd0d32b600"};
