"""The embedded data set: rendered photographs of small metal and plastic parts under an inspection camera.

Every part has the factors that make it easy or hard to detect, measured in the finished image. The difficulties that
mining finds can be checked against them.
"""

from loop.data.world.factors import HARD, Factors
from loop.data.world.folder import write_world
from loop.data.world.plan import CLASSES
from loop.data.world.scene import HEIGHT_PX, WIDTH_PX, Scene, render_scene

__all__ = ["CLASSES", "HARD", "HEIGHT_PX", "WIDTH_PX", "Factors", "Scene", "render_scene", "write_world"]
