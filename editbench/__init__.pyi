# What type checkers see of the public interface: at run time the names are imported when used.
from editbench.api import Run as Run
from editbench.api import Runs as Runs
from editbench.api import codes as codes
from editbench.api import generator as generator
from editbench.api import inverted as inverted
from editbench.api import judge as judge
from editbench.api import load as load
from editbench.api import options as options
from editbench.api import run as run
from editbench.api import strip as strip
from editbench.api import teacher as teacher

__version__: str
__all__: list[str]
