"""Code of the registered model: MLflow copies this file beside the weights and runs it where the model is loaded.

It may import the model's requirements and the version's own copy of `objgan`; nothing else of this repository. What the
model takes and gives is in `objgan.serving`; here are MLflow's and pandas' parts of it.
"""

import ast
import hashlib
import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import FrameType
from typing import Any

import mlflow
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PyFuncModel, PythonModel

_PACKAGE = "objgan"
_CODE = Path(__file__).parent / "code"
"""Where MLflow puts a model's packages."""


class Refused(MlflowException):
    """Wrong input. Its message is one sentence, over REST, too: MLflow's server would put all the data before it."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, error_code=INVALID_PARAMETER_VALUE)

    message = property(lambda self: str(self), lambda self, text: None)


class CaptionToImage(PythonModel):
    """Rows of captions -> rows of pictures (see `objgan.serving`)."""

    def load_context(self, context: Any) -> None:
        """Load the version's code and weights, onto a GPU if available.

        Raises:
            Refused: the model's folder is damaged.
        """
        package = own_package()
        self._serving = importlib.import_module(f"{package}.serving")
        self._input_error: type[Exception] = importlib.import_module(f"{package}.errors").InputError
        try:
            self._model = importlib.import_module(package).load(context.artifacts["model"])
        except self._input_error as error:
            raise Refused(str(error)) from None

    # MLflow reads the annotation of `model_input` and converts what it can to it; a DataFrame's leaves all as it is.
    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """A row for each picture, with the index of the row that it belongs to.

        model_input: a text, a list of texts, a list of dictionaries, a dictionary of lists, or a table
        params:      see `objgan.serving.Params`

        Raises:
            Refused: an unknown column or param, a param that is not allowed, or an error in a row.
        """
        try:
            asked = self._serving.Params.read(self._all_params(params or {}))
            table = _table(model_input)
            self._check_columns(list(table.columns))
            known = table.astype(object).where(table.notna(), None)
            rows = [{name: _plain(value) for name, value in row.items()} for row in known.to_dict("records")]
            answers = list(self._serving.answer(self._model, rows, asked))
        except self._input_error as error:
            raise Refused(str(error)) from None
        index = table.index.take([row["row"] for row in answers])
        result = pd.DataFrame(answers, columns=list(self._serving.OUTPUTS), index=index, dtype=object)
        return result.astype({"row": "int64"})

    def _all_params(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """With those that the signature does not name.

        MLflow drops them, with a warning, before it calls the model (3.17: `_enforce_params_schema`), and no setting
        keeps them. Without them, a misspelt `seed` would silently be 0.
        """
        frame: FrameType | None = sys._getframe()
        while frame is not None:
            if frame.f_code is PyFuncModel.predict.__code__:
                wrapper, asked = frame.f_locals["self"], frame.f_locals["params"]
                if getattr(wrapper._model_impl, "python_model", None) is self:
                    return {**(asked or {}), **params}
            frame = frame.f_back
        return dict(params)

    def _check_columns(self, names: list[Any]) -> None:
        allowed = self._serving.INPUTS
        for name in names:
            if name not in allowed:
                raise Refused(f"unknown column {str(name)[:80]!r}: a table has {', '.join(allowed)}")
            if names.count(name) > 1:
                raise Refused(f"column {name} is there twice")
        if "caption" not in names:
            raise Refused("no column caption")


def _table(data: Any) -> pd.DataFrame:
    """The caller's rows. A text or a list of texts is the column `caption`; values keep their types."""
    if isinstance(data, pd.DataFrame):
        return data
    if isinstance(data, pd.Series):
        return data.to_frame("caption")
    data = data.tolist() if isinstance(data, np.ndarray) else data
    if isinstance(data, list) and any(isinstance(row, dict) for row in data):
        return pd.DataFrame([row if isinstance(row, dict) else {"caption": row} for row in data], dtype=object)
    columns = data if isinstance(data, dict) else {"caption": data}
    lists = {name: _column(values) for name, values in columns.items()}
    if len({len(values) for values in lists.values()}) > 1:
        raise Refused(f"columns of different lengths: {', '.join(f'{name} {len(v)}' for name, v in lists.items())}")
    return pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in lists.items()})


def _column(values: Any) -> list[Any]:
    values = values.tolist() if isinstance(values, np.ndarray | pd.Series) else values
    return list(values) if isinstance(values, list | tuple) else [values]


def _plain(value: Any) -> Any:
    """A cell without NumPy's wrapping."""
    return value.item() if isinstance(value, np.generic | np.ndarray) and value.ndim == 0 else value


def own_package() -> str:
    """The version's own `objgan`, importable under a name of its own, which is returned.

    MLflow puts each version's code on `sys.path`, and Python has room for one `objgan`: a second version would run the
    first one's code, or that of an installed `objgan`.
    """
    folder, digest = _CODE / _PACKAGE, hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    name = f"{_PACKAGE}_{digest.hexdigest()[:12]}"
    if name not in sys.modules:
        sys.meta_path.insert(0, _Finder(name, folder))
    return name


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of one version's package."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name, self._folder = name, folder

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Of `NAME` and `NAME.module`; None for all others."""
        name, *parts = fullname.split(".")
        place = self._folder.joinpath(*parts)
        package = place / "__init__.py"
        file = package if package.is_file() else place.with_suffix(".py")
        if name != self._name or not file.is_file():
            return None
        inside = [str(place)] if file == package else None
        loader = _Loader(fullname, str(file))
        return importlib.util.spec_from_file_location(fullname, file, loader=loader, submodule_search_locations=inside)


class _Loader(SourceFileLoader):
    """Compiles a module whose imports of `objgan` mean its own package; nothing is cached beside the sources."""

    def get_code(self, fullname: str) -> Any:
        """The module's code."""
        path = self.get_filename(fullname)
        tree = _Rename(fullname.split(".")[0]).visit(ast.parse(self.get_data(path), path))
        return compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True)


class _Rename(ast.NodeTransformer):
    """`import objgan` -> `import NAME as objgan`; `from objgan.layout import x` -> `from NAME.layout import x`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def visit_Import(self, node: ast.Import) -> ast.Import:
        """`import a, objgan, objgan.b`."""
        for alias in [alias for alias in node.names if alias.name.split(".")[0] == _PACKAGE]:
            if alias.asname is None:
                node.names.append(ast.alias(self._name, _PACKAGE))
            alias.name = self._name + alias.name.removeprefix(_PACKAGE)
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom:
        """`from objgan.b import c`."""
        if not node.level and node.module and node.module.split(".")[0] == _PACKAGE:
            node.module = self._name + node.module.removeprefix(_PACKAGE)
        return node


mlflow.models.set_model(CaptionToImage())
