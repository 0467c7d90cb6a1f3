"""Loading what a command names: "package.module:object", "path/file.py[:object]" or "file.yaml".

Every failure is a UsageError of one line that says where in the user's file it lies.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from streams.errors import UsageError, WeirError, did_you_mean
from streams.pipeline import Pipeline

_OURS = tuple(str(Path(__file__).parent.parent / name) + os.sep for name in ("streams", "features"))
_LIBRARIES = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def load_pipeline(where: str) -> Pipeline:
    """The pipeline that `where` names. UsageError: one line with file, line and mend."""
    if where.endswith((".yaml", ".yml")):
        from streams.yaml_form import load_yaml

        _import_path(Path(where).parent)
        return load_yaml(Path(where), load_function)
    place, name = _split(where)
    module = _file_module(place) if place.endswith(".py") else _module(place)
    if name is None:
        return _only_pipeline(module, place)
    found = _attribute(module, place, name)
    if not isinstance(found, Pipeline):
        raise UsageError(f"{where} is not a Pipeline; its type is {type(found).__name__}")
    return found


def load_function(where: str) -> Callable[..., Any]:
    """The function "module:function"."""
    place, name = _split(where)
    if name is None:
        raise UsageError(f"{where!r} names no function; write module:function")
    found = _attribute(_module(place), place, name)
    if not callable(found):
        raise UsageError(f"{where} is not a function; its type is {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def _split(where: str) -> tuple[str, str | None]:
    place, _, name = where.rpartition(":") if ":" in where else (where, "", "")
    if not place or (name and not name.isidentifier()) or where.endswith(":"):
        raise UsageError(f"{where!r}: write package.module:object, path/file.py[:object] or file.yaml")
    return place, name or None


def _file_module(place: str) -> ModuleType:
    path = Path(place).resolve()
    if not path.is_file():
        raise UsageError(f"there is no file {place}")
    _import_path(path.parent)
    # A name of its own: a file called like a package of ours or of the standard library shadows nothing.
    name = f"_pipeline_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module, loader = importlib.util.module_from_spec(spec), spec.loader
    sys.modules[name] = module

    def load() -> ModuleType:
        loader.exec_module(module)
        return module

    return _guarded(place, load)


def _module(place: str) -> ModuleType:
    if not all(part.isidentifier() for part in place.split(".")):
        raise UsageError(f"{place!r} is neither a module nor a file that ends in .py or .yaml")
    _import_path(Path())
    return _guarded(place, lambda: importlib.import_module(place))


def _guarded(place: str, load: Callable[[], ModuleType]) -> ModuleType:
    try:
        return load()
    except SyntaxError as error:
        raise UsageError(f"{_shown(error.filename or place)}:{error.lineno}: {error.msg}") from error
    except ModuleNotFoundError as error:
        if error.name is not None and (place == error.name or place.startswith(error.name + ".")):
            raise UsageError(f"there is no module {error.name}; run weir where it can be imported") from error
        raise UsageError(f"{_line_of(error, place)}: {error}") from error
    except WeirError as error:
        raise UsageError(f"{_line_of(error, place)}: {error}") from error
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())
        raise UsageError(f"{_line_of(error, place)}: {type(error).__name__}{': ' if text else ''}{text}") from error


def _line_of(error: BaseException, place: str) -> str:
    """ "file:line" of the innermost frame that is neither ours nor a library's."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith((*_OURS, *_LIBRARIES, "<")):
            return f"{_shown(frame.filename)}:{frame.lineno}"
    return place


def _shown(filename: str) -> str:
    relative = os.path.relpath(filename)
    return filename if relative.startswith("..") else relative


def _import_path(folder: Path) -> None:
    # At the end: a user's folder called models/ must not take the place of ours.
    path = str(folder.resolve())
    if path not in sys.path:
        sys.path.append(path)


def _only_pipeline(module: ModuleType, place: str) -> Pipeline:
    found = {id(value): (name, value) for name, value in vars(module).items() if isinstance(value, Pipeline)}
    if not found:
        raise UsageError(f"{place} declares no Pipeline")
    if len(found) > 1:
        names = sorted(name for name, _ in found.values())
        raise UsageError(f"{place} declares {len(names)} pipelines: {', '.join(names)}; write {place}:{names[0]}")
    return next(iter(found.values()))[1]


def _attribute(module: ModuleType, place: str, name: str) -> Any:
    if not hasattr(module, name):
        raise UsageError(f"{place} has no {name!r}{did_you_mean(name, vars(module))}")
    return getattr(module, name)
