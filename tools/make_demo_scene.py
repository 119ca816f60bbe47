"""Write the picture and the sentence that ``make demo`` starts from: a test scene of the synthetic world.

python -m tools.make_demo_scene            the scene that stands in docs/demo/
python -m tools.make_demo_scene --scene 14 --output /tmp/demo
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from ttm.atomic_write import written_beside
from ttm.data.synthetic import SyntheticWorld

SCENE = 30
OUTPUT = Path(__file__).parents[1] / "docs/demo"


def main() -> None:
    """Write ``scene.png`` (the first frame) and ``prompt.txt`` of one scene that training never saw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", type=int, default=SCENE, help="index in the test split, two objects a scene")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    scene = SyntheticWorld("test", num_objects=(2, 2), appearance=0.3)[arguments.scene]
    arguments.output.mkdir(parents=True, exist_ok=True)
    with written_beside(arguments.output / "scene.png") as beside:
        Image.fromarray(scene.frames[0]).save(beside, optimize=True)
    with written_beside(arguments.output / "prompt.txt") as beside:
        beside.write_text(scene.plan.prompt + "\n", encoding="utf-8")
    print(f"{arguments.output}: {scene.plan.prompt}")


if __name__ == "__main__":
    main()
