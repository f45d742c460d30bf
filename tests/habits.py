"Ten notebooks of different habits, each with the table that it reads: what `og adopt` is tried on."
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
from sklearn.datasets import load_wine

HEAD = "import pandas as pd\nfrom sklearn.model_selection import train_test_split"
HABITS: dict[str, list[str]] = {
    "tidy, with a scaler and pictures": [
        f"{HEAD}\nfrom sklearn.ensemble import RandomForestClassifier\nfrom sklearn.preprocessing import StandardScaler",
        "%matplotlib inline\nimport matplotlib.pyplot as plt", 'df = pd.read_csv("wines.csv")\ndf.head()',
        'df["ratio"] = df.alcohol / df.hue\ndf["centred"] = df.ash - df.ash.mean()\ndf = df.dropna()', "df.ash.hist(); plt.show()",
        'X = df.drop(columns=["kind"])\ny = df["kind"]\nX_train, X_test, y_train, y_test = train_test_split(X, y)\ns = StandardScaler()\n'
        "X_train = s.fit_transform(X_train)\nX_test = s.transform(X_test)",
        'model = RandomForestClassifier(n_estimators=5).fit(X_train, y_train)\npd.DataFrame(model.predict(X_test)).to_csv("out.csv")'],
    "dates, dummies and pop": [
        f"{HEAD}\nfrom lightgbm import LGBMClassifier", 'df = pd.read_csv("people.csv", parse_dates=["signup"])',
        'df["year"] = df.signup.dt.year\ndf["rich"] = (df["Monthly Income"] > 3000).astype(int)\n'
        'del df["Customer ID"]\ndf = pd.get_dummies(df, columns=["City"])',
        'y = (df.pop("Churned") == "yes").astype(int)\nX = df.drop(columns=["signup"])\nX_train, X_test, y_train, y_test = train_test_split(X, y)\n'
        "model = LGBMClassifier(n_estimators=5).fit(X_train, y_train)"],
    "data of a package, cross-validation": [
        "from sklearn.datasets import load_diabetes\nfrom sklearn.linear_model import Ridge\nfrom sklearn.model_selection import cross_val_score",
        "data = load_diabetes(as_frame=True)\nframe = data.frame", 'frame["bmi_bp"] = frame["bmi"] * frame["bp"]',
        'cross_val_score(Ridge(), frame.drop("target", axis=1), frame["target"]).mean()'],
    "functions": [
        "import pandas as pd\nfrom sklearn.ensemble import GradientBoostingClassifier",
        'PATH = "people.csv"\ndef load(path):\n    return pd.read_csv(path)\n\n'
        'def add_features(data):\n    data = data.copy()\n    data["old"] = data["Age"] > 60\n    return data',
        "raw = load(PATH)\nframe = add_features(raw)",
        'cols = ["Age", "old", "Monthly Income"]\ntrain = frame.dropna(subset=cols)\n'
        'GradientBoostingClassifier(n_estimators=5).fit(train[cols], train["Churned"])'],
    "bare arrays and an encoded target": [
        "import pandas as pd\nfrom sklearn.svm import SVC\nfrom sklearn.preprocessing import LabelEncoder",
        'data = pd.read_csv("wines.csv").dropna()\nX = data.iloc[:, :-1].values\n'
        'le = LabelEncoder()\ny = le.fit_transform(data["kind"])', "SVC().fit(X, y)"],
    "cells out of order": [
        "import pandas as pd", 'df = pd.read_csv("wines.csv")', 'model = Classifier().fit(df[["proline", "hue"]], df["kind"])',
        "from sklearn.tree import DecisionTreeClassifier as Classifier"],
    "a pipeline of scikit-learn": [
        f"{HEAD}\nfrom sklearn.pipeline import make_pipeline\nfrom sklearn.compose import ColumnTransformer\n"
        "from sklearn.impute import SimpleImputer\nfrom sklearn.preprocessing import OneHotEncoder\n"
        "from sklearn.linear_model import LogisticRegression", 'df = pd.read_csv("people.csv")',
        'X = df[["Age", "City", "Monthly Income"]]\ny = df["Churned"]\nX_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y)',
        'pre = ColumnTransformer([("num", SimpleImputer(), ["Age", "Monthly Income"]), ("cat", OneHotEncoder(), ["City"])])\n'
        "clf = make_pipeline(pre, LogisticRegression())\nclf.fit(X_train, y_train)"],
    "two tables": [
        "import pandas as pd\nfrom sklearn.linear_model import LinearRegression",
        'a = pd.read_csv("people.csv")\nb = pd.DataFrame({"City": ["Berlin", "Paris"], "rent": [900, 1200]})\ndf = a.merge(b, on="City").dropna()',
        'LinearRegression().fit(df[["Age", "rent"]], df["Monthly Income"])'],
    "an absolute path, a secret, an installation": [
        "import pandas as pd\nimport lightgbm as lgb",
        'PASSWORD = "hunter2-hunter2"\n'  # pragma: allowlist secret
        'df = pd.read_csv("{folder}/people.csv").dropna()\n!pip install something',
        'df["digits"] = df["Monthly Income"].clip(lower=1).apply(lambda v: len(str(int(v))))\n'
        'rows = lgb.Dataset(df[["Age", "digits"]], label=(df.Churned == "yes"))\nlgb.train({"objective": "binary", "verbosity": -1}, rows, 5)'],
    "all of it in main": [
        "import pandas as pd\nfrom sklearn.linear_model import LinearRegression",
        'def main():\n    df = pd.read_csv("people.csv").dropna()\n    LinearRegression().fit(df[["Age"]], df["Monthly Income"])\n\nmain()'],
}
STOPPED = {"two tables": "reads a second table (b)", "all of it in main": "no call was found that learns"}


def wines() -> pd.DataFrame:
    found = load_wine(as_frame=True).frame
    found["kind"] = found.pop("target").map({0: "barolo", 1: "grignolino", 2: "barbera"})
    found.loc[3, "ash"] = np.nan
    return found


def people(count: int = 800) -> pd.DataFrame:
    "Made up: who is old, or lives in Rome, leaves more often."
    draw = np.random.default_rng(1)
    found = pd.DataFrame({"Customer ID": range(1000, 1000 + count), "Age": draw.integers(18, 80, count),
                          "City": draw.choice(["Berlin", "Paris", "Rome"], count), "Monthly Income": draw.normal(3000, 800, count).round(2),
                          "signup": pd.date_range("2020-01-01", periods=count, freq="12h").astype(str)})
    leaves = draw.random(count) < 1 / (1 + np.exp(-(found.Age - 50) / 10 + (found.City == "Rome")))
    found.loc[::37, "Monthly Income"] = np.nan
    return found.assign(Churned=np.where(leaves, "yes", "no"))


def written(habit: str, folder: Path) -> Path:
    "The notebook of a habit, beside its table."
    folder.mkdir(parents=True, exist_ok=True)
    wines().to_csv(folder / "wines.csv", index=False)
    people().to_csv(folder / "people.csv", index=False)
    cells = [nbformat.v4.new_code_cell(source.replace("{folder}", str(folder))) for source in HABITS[habit]]
    order = [1, 2, 4, 3] if habit == "cells out of order" else range(1, len(cells) + 1)
    for cell, count in zip(cells, order, strict=True):
        cell.execution_count = count
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "my.ipynb")
    return folder / "my.ipynb"
