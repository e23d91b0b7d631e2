"""Data files that the command line reads: by their ending, with separators and decimals as the user says.

Nothing is fetched.
"""

from __future__ import annotations

import difflib
import struct
from pathlib import Path
from zipfile import BadZipFile

import pandas as pd

from causalrisk.design.csv_files import read_csv
from causalrisk.errors import DesignError, OptionError

TEXT = (".csv", ".txt", ".tsv", ".tab")
OTHERS = (".dta", ".parquet", ".xlsx", ".xls", ".feather")
NEEDS = {".parquet": "pyarrow", ".feather": "pyarrow", ".xlsx": "openpyxl", ".xls": "xlrd"}


def read_file(
    path: Path,
    sep: str | None = None,
    decimal: str = ".",
    thousands: str | None = None,
    encoding: str = "utf-8",
    missing: frozenset[str] = frozenset(),
) -> pd.DataFrame:
    r"""Read a data file.

    Parameters
    ----------
    path : Path
        A text file (.csv, .tsv, .txt), or one of Stata (.dta), Parquet, Excel or Feather.
    sep : str, optional
        Separator of a text file; by default a comma, in a .tsv file a tab. "\\t" is a tab.
    decimal, thousands : str
        The decimal mark, and the separator of thousands.
    encoding : str
        Encoding of a text file.
    missing : frozenset of str
        Words of a text file that are missing values in every column.

    Returns
    -------
    DataFrame
        The data; `causalrisk.design.csv_files` says which cells of a text file are missing.

    Raises
    ------
    DesignError
        If there is no such file, its ending is not known, or it cannot be read.
    OptionError
        If the path is a web address, which is never fetched.
    """
    ending = path.suffix.lower()
    if not path.exists() and ":/" in str(path):
        raise OptionError(
            f"{str(path)!r} is a web address; expected a file on this computer: nothing is fetched.\n"
            "Download it first, and look at it."
        )
    if not path.is_file():
        raise DesignError(_not_there(path))
    if ending in TEXT or not ending:
        usual = "\t" if ending in (".tsv", ".tab") else ","
        sep = (sep or usual).replace("\\t", "\t")
        try:
            return read_csv(
                path.absolute(), sep=sep, decimal=decimal, thousands=thousands, encoding=encoding,
                na_values=tuple(missing),
            )  # fmt: skip
        except DesignError:
            raise
        except UnicodeDecodeError as error:
            raise DesignError(
                f"{path} is not {encoding.upper()} text.\n"
                "Type  --encoding latin-1  for a file of older Windows programs, or save it as UTF-8."
            ) from error
        except LookupError as error:
            raise DesignError(f"--encoding {encoding}: {error}.\nType  --encoding utf-8") from error
        except pd.errors.EmptyDataError as error:
            raise DesignError(
                f"{path} is empty; expected a line of column names and the data.\nSave it again."
            ) from error
        except ValueError as error:
            raise DesignError(f"{path} cannot be read: {error}.\nCheck --sep, --decimal and --thousands.") from error
    if ending not in OTHERS:
        raise DesignError(
            f"{path}: the ending {ending!r} is not known; expected one of {', '.join((*TEXT, *OTHERS))}.\n"
            "Save it as .csv, or rename it if it is text."
        )
    readers = {".dta": pd.read_stata, ".parquet": pd.read_parquet, ".feather": pd.read_feather}
    try:
        return readers.get(ending, pd.read_excel)(path.absolute())
    except ImportError as error:
        raise DesignError(
            f"{path}: reading {ending} needs {NEEDS.get(ending, 'another package')}, which is not installed.\n"
            f"Type  pip install {NEEDS.get(ending, 'pandas')} , or save the file as .csv."
        ) from error
    except (ValueError, OSError, KeyError, BadZipFile, struct.error) as error:
        raise DesignError(f"{path} is not a readable {ending} file: {error}.\nSave it again, or as .csv.") from error


def _not_there(path: Path) -> str:
    if path.is_dir():
        return f"{path} is a folder; expected a data file.\nType  {path}/ and the name of the file in it."
    if not path.parent.is_dir():
        return f"there is no folder {str(path.parent)!r}.\nType  the path of the file as  ls  shows it."
    names = [entry.name for entry in path.parent.iterdir() if entry.suffix.lower() in (*TEXT, *OTHERS)]
    close = difflib.get_close_matches(path.name, names, 1, 0.6)
    here = f"there is no file {path.name!r} in {str(path.parent.resolve())!r}.\n"
    if close:
        return f"{here}Type  {path.with_name(close[0])}"
    return here + ("Data files there: " + ", ".join(sorted(names)[:8]) + "." if names else "Give the path to the file.")
