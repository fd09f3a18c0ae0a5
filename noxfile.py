"""``nox`` runs the whole suite on each Python that the package claims, as far as they are installed.

``nox -s tests-3.10 -- tests/unit`` runs a part of it on one of them.
"""

import nox

#: As pyproject.toml's classifiers have them.
PYTHONS = nox.project.python_versions(nox.project.load_toml("pyproject.toml"))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Install the package with its dev extra into a new environment, and run pytest there."""
    session.install("-e", ".[dev]")
    session.run("pytest", *session.posargs)
