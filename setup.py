"""The layout of the package: `methods`, `metrics` and `conf` lie beside `editbench`, and are installed inside it."""

from setuptools import find_packages, setup

INSIDE = ("methods", "metrics", "conf")  # top-level folders of the repository -> editbench.NAME

packages = find_packages(include=["editbench*"])
package_dir = {}
for folder in INSIDE:
    package_dir[f"editbench.{folder}"] = folder
    packages.append(f"editbench.{folder}")
    packages += [f"editbench.{folder}.{name}" for name in find_packages(folder)]

setup(packages=packages, package_dir=package_dir)
