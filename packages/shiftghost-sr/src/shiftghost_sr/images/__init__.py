"""Pictures as arrays: resampling, measures, data sets, files."""
