"""What `softly train` does, written with polars and scikit-learn: TABLE MODEL DTYPE."""

import sys
import warnings

import joblib
import numpy as np
import polars as pl
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

path, model_path, dtype = sys.argv[1:]
table = pl.read_parquet(path)
y = table["cover_type"].to_numpy()
X = table.drop("cover_type").to_numpy().astype(dtype)
del table
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, stratify=y, random_state=0)
del X
model = make_pipeline(StandardScaler(copy=False), LogisticRegression(C=1.0, max_iter=100))
warnings.simplefilter("ignore")
model.fit(X_train, y_train)
p = model.predict_proba(X_test)
predicted = model.classes_[p.argmax(axis=1)]
print(f"{accuracy_score(y_test, predicted):.4f} {log_loss(y_test, p.astype(np.float64)):.4f}")
joblib.dump(model, model_path)
