"""Times jfusion's train step against its PyTorch twin.

python -m benchmarks.train_step
python -m benchmarks.train_step --model genre_fusion --batch 32 --dtype bfloat16 --json rows.json
"""

from benchmarks import compare, jfusion_step, torch_twins, torch_work
from jfusion import host

STEP = compare.Step(
    "Train step", jfusion_step.train_step, torch_twins.train_step, torch_work.train_step
)

if __name__ == "__main__":
    host.restart_with_tuned_memory()  # for both sides
    compare.main("train_step", __doc__.partition("\n")[0], STEP)
