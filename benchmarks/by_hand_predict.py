"""What `softly predict` does, written with polars and scikit-learn: TABLE MODEL OUTPUT."""

import sys

import joblib
import polars as pl

path, model_path, output = sys.argv[1:]
model = joblib.load(model_path)
names = [str(c) for c in model.classes_]
scan = pl.scan_parquet(path).drop("cover_type", strict=False)
answers = []
for batch in scan.collect_batches(chunk_size=65_536, maintain_order=True):
    p = model.predict_proba(batch.to_numpy().astype("float32"))
    best = p.argmax(axis=1)
    columns = {"prediction": pl.Series(names).gather(best), "probability": p.max(axis=1)}
    answers.append(pl.DataFrame(columns | {f"p_{c}": p[:, j] for j, c in enumerate(names)}))
pl.concat(answers).write_parquet(output)
