"""Stands in for `tests.generation` of transformers, which its common tests import and its source archive lacks.

A pytest plugin: `pytest -p stubs`, with this folder and the unpacked archive on PYTHONPATH.
"""

import sys
import types


class GenerationTesterMixin:
    """Empty: no model of images generates text."""


package = types.ModuleType("tests.generation")
package.__path__ = []
module = types.ModuleType("tests.generation.test_utils")
module.GenerationTesterMixin = GenerationTesterMixin
sys.modules |= {"tests.generation": package, "tests.generation.test_utils": module}
