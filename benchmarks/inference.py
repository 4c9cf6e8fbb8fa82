"""Times jfusion's evaluation step against its PyTorch twin.

python -m benchmarks.inference --model mobilenet_v2 --model efficientnet
python -m benchmarks.inference --model distilbert --batch 32 --dtype bfloat16 --json rows.json
"""

from benchmarks import compare, jfusion_step, torch_twins, torch_work
from jfusion import host

STEP = compare.Step(
    "Inference", jfusion_step.inference, torch_twins.inference, torch_work.inference
)

if __name__ == "__main__":
    host.restart_with_tuned_memory()  # for both sides
    compare.main("inference", __doc__.partition("\n")[0], STEP)
