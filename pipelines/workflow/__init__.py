"""`run`: all steps from COCO files to a registered model; finished steps are skipped."""
